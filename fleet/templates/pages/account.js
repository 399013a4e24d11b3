const form = document.querySelector("form");
const button = form.querySelector("button");
const status = document.querySelector("[role=status]");
const send = async () => {
  const body = { token: location.hash.slice(1), ...Object.fromEntries(new FormData(form)) };
  const answer = await fetch(form.dataset.to, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (answer.ok) {
    form.hidden = true;
    history.replaceState(null, "", location.pathname + location.search);
    return form.dataset.done;
  }
  const problem = await answer.json().catch(() => ({ title: `${answer.status}` }));
  return problem.errors?.[0]?.message ?? (answer.status === 400 ? form.dataset.failed : problem.title);
};
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  // The token works once: a second press would be told so, after the first one has worked.
  button.disabled = true;
  status.textContent = await send().catch((error) => error.message);
  button.disabled = false;
});
