const form = document.querySelector("form");
const status = document.querySelector("[role=status]");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = { token: location.hash.slice(1), ...Object.fromEntries(new FormData(form)) };
  const answer = await fetch(form.dataset.to, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (answer.ok) {
    form.hidden = true;
    status.textContent = form.dataset.done;
    history.replaceState(null, "", location.pathname + location.search);
    return;
  }
  const problem = await answer.json();
  status.textContent = problem.errors?.[0]?.message ?? (answer.status === 400 ? form.dataset.failed : problem.title);
});
