"""What is installed is what was chosen: pins, hashes, the bill of materials, and no secret in any commit."""

import json
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import pytest
from packaging.markers import Marker

from tests.supply import audit, bill, history
from tests.supply.lock import PARTS, ROOT, pins

SHORT_TOKEN = "whsec_" + "A" * 32


def of(name: str) -> dict[Any, frozenset[str]]:
    return pins((ROOT / name).read_text())


@pytest.mark.parametrize("part", PARTS)
def test_a_lock_is_its_requirements_with_hashes(part: str) -> None:
    assert of(f"{part}.lock").keys() == of(f"{part}.txt").keys(), "run `make lock`"
    assert not [pin for pin, hashes in of(f"{part}.lock").items() if not hashes]


@pytest.mark.parametrize("part", PARTS)
def test_requirements_say_nothing_but_exact_versions(part: str) -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / f"{part}.txt").read_text().splitlines()]
    loose = [line for line in lines if line and not line.startswith("-r ") and not pins(line)]
    assert not loose


def test_what_is_installed_here_is_what_is_locked() -> None:
    wanted = {pin for pin in of("requirements.lock") if not pin.marker or Marker(pin.marker).evaluate()}
    assert {pin.name: metadata.version(pin.name) for pin in wanted} == {pin.name: pin.version for pin in wanted}


def test_make_installs_from_the_locks_and_nothing_else() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "pip install" in line and "LOCKSMITH" not in line]
    assert installs and all("--require-hashes --requirement requirements-" in line and ".lock" in line for line in installs)
    assert "make audit || failed=1" in (ROOT / ".ci" / "run").read_text()


def test_the_bill_of_materials_names_every_package_of_a_deploy() -> None:
    written = json.loads(bill.bill())
    assert (written["bomFormat"], written["specVersion"]) == ("CycloneDX", "1.6")
    listed = {(item["name"], item["version"], item["purl"]) for item in written["components"]}
    locked = of("requirements.lock")
    assert listed == {(pin.name, pin.version, f"pkg:pypi/{pin.name}@{pin.version}") for pin in locked}
    assert all(item["externalReferences"][0]["hashes"] for item in written["components"])


class TestAudit:
    """The answers of pip-audit are made up here: what matters is what is concluded from them."""

    @staticmethod
    def concluded(ours: audit.Report, *, control: list[dict[str, Any]]) -> tuple[int, str]:
        def ask(requirements: list[str]) -> audit.Report:
            return control if requirements == [audit.KNOWN_VULNERABLE] else ours

        code, said = audit.audit(ask)
        return code, "\n".join(said)

    KNOWS: ClassVar = ({"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "CVE-2014-1402", "fix_versions": ["2.7.2"]}]},)

    @staticmethod
    def clean() -> audit.Report:
        return [{"name": pin.name, "version": pin.version, "vulns": []} for part in PARTS for pin in of(f"{part}.lock")]

    @pytest.mark.parametrize("control", [[], [{"name": "jinja2", "skip_reason": "?"}], [{"name": "jinja2", "vulns": []}]])
    def test_where_the_advisories_are_out_of_reach_it_says_so(self, control: list[dict[str, Any]]) -> None:
        code, said = self.concluded(self.clean(), control=control)
        assert code == 0 and "NOT AUDITED" in said and "none known" not in said

    def test_a_vulnerable_version_fails(self) -> None:
        report = self.clean()
        report[0]["vulns"] = [{"id": "CVE-2026-1", "fix_versions": ["9.9"]}]
        code, said = self.concluded(report, control=[*self.KNOWS])
        assert code == 1 and f"{report[0]['name']} {report[0]['version']}: CVE-2026-1, mended in 9.9" in said

    def test_a_package_without_data_fails_where_others_have_some(self) -> None:
        report = self.clean()
        del report[0]["vulns"]
        code, said = self.concluded(report, control=[*self.KNOWS])
        assert code == 1 and f"no data on {report[0]['name']}" in said

    def test_nothing_known_is_said_only_when_all_were_asked_about(self) -> None:
        code, said = self.concluded(self.clean(), control=[*self.KNOWS])
        assert code == 0 and said.startswith("vulnerabilities: none known in")


class TestHistory:
    """What `make audit` sees in the output of `git log -p`."""

    @staticmethod
    def diff(line: str) -> str:
        return f"commit {'a' * 40}\n+++ b/settings.py\n{line}\n"

    @pytest.mark.parametrize(
        "secret",
        [
            "-----BEGIN EC PRIVATE " + "KEY-----",
            "AKIA" + "ABCDEFGHIJKLMNOP",
            "ghp_" + "a" * 36,
            "sk_live_" + "a" * 24,
            SHORT_TOKEN,
            "flt_" + "a" * 43,
            "postgres://fleet:" + "b" * 16 + "@db.example/fleet",
            "SECRET_KEY=" + "c" * 40,
        ],
    )
    def test_a_secret_is_found_where_it_was_added_and_not_shown(self, secret: str) -> None:
        (found,) = history.findings(self.diff(f"+{secret}"))
        assert "settings.py" in f"{found}" and secret not in f"{found}"
        assert not history.findings(self.diff(f"-{secret}"))

    def test_what_only_a_merge_brought_is_found_and_so_is_what_git_takes_for_binary(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def git(*arguments: str) -> None:
            who = ("-c", "user.name=Ana", "-c", "user.email=ana@example.com")
            subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

        git("init", "--initial-branch=main")
        git("commit", "--allow-empty", "--message=begin")
        git("checkout", "-b", "side")
        (tmp_path / "side.bin").write_bytes(b"\0" + SHORT_TOKEN.encode() + b"\n")
        git("add", ".")
        git("commit", "--message=side")
        git("checkout", "main")
        git("commit", "--allow-empty", "--message=meanwhile")
        git("merge", "--no-commit", "side")
        (tmp_path / "merged.txt").write_text("ghp_" + "a" * 36 + "\n")
        git("add", ".")
        git("commit", "--message=merge")
        monkeypatch.setattr(history, "ROOT", tmp_path)
        assert sorted(found.path for found in history.findings(history.history())) == ["merged.txt", "side.bin"]

    @pytest.mark.skipif(not history.is_whole(), reason="an archive or a shallow clone has no history")
    def test_every_excuse_is_still_needed(self) -> None:
        """One that excuses nothing would hide the next secret that looks alike."""
        added = [line for _, _, line in history.added_lines(history.history())]
        assert not [excuse for excuse in history.HARMLESS if not any(excuse in line for line in added)]
