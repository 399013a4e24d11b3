"""The script of the pages behind the links in letters, run where there is a Node: what it says is what happened."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.source import ROOT

SCRIPT = ROOT / "fleet" / "templates" / "pages" / "account.js"
NODE = shutil.which("node")
# As much of a browser as the script touches. Whoever is impatient presses twice; a disabled button cannot be pressed.
BROWSER = """
const [script, answers] = process.argv.slice(1);
const given = JSON.parse(answers);
const said = { textContent: "" }, button = { disabled: false };
let submitted, sent = 0;
const form = {
  dataset: { to: "/to", done: "done", failed: "failed" }, hidden: false,
  addEventListener: (_, listener) => { submitted = listener; }, querySelector: () => button,
};
const scope = {
  document: { querySelector: (what) => (what === "form" ? form : said) },
  location: { hash: "#token", pathname: "/page", search: "" }, history: { replaceState() {} },
  FormData: class { *[Symbol.iterator]() {} },
  fetch: async () => {
    const answer = given[Math.min(sent++, given.length - 1)];
    if (!answer) throw new TypeError("Failed to fetch");
    return { ok: answer.status < 300, status: answer.status, json: async () => JSON.parse(answer.body) };
  },
};
new Function(...Object.keys(scope), script)(...Object.values(scope));
const press = () => (button.disabled ? null : submitted({ preventDefault() {} }));
Promise.allSettled([press(), press()]).then(() =>
  console.log(JSON.stringify({ said: said.textContent, sent, again: !form.hidden && !button.disabled })));
"""


def pressed_twice(*answers: dict[str, Any] | None) -> dict[str, Any]:
    ran = subprocess.run(
        [NODE or "node", "-e", BROWSER, SCRIPT.read_text(), json.dumps(answers)],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    seen: dict[str, Any] = json.loads(ran.stdout)
    return seen


@pytest.mark.skipif(NODE is None, reason="Node is not installed")
@pytest.mark.parametrize(
    ("answers", "said", "again"),
    [
        # The second use of the token is refused: it must not be asked for.
        ([{"status": 204, "body": ""}, {"status": 400, "body": "{}"}], "done", False),
        ([{"status": 400, "body": '{"title": "Bad Request"}'}], "failed", True),
        ([{"status": 422, "body": '{"errors": [{"message": "is too common"}]}'}], "is too common", True),
        ([{"status": 429, "body": '{"title": "Too Many Requests"}'}], "Too Many Requests", True),
        ([{"status": 502, "body": "<html>"}], "502", True),
        ([None], "Failed to fetch", True),
    ],
)
def test_the_page_says_what_happened_however_often_the_button_is_pressed(
    answers: list[dict[str, Any] | None], said: str, again: bool
) -> None:
    assert pressed_twice(*answers) == {"said": said, "sent": 1, "again": again}
