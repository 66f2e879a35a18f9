"""The sluice command explains itself, reports errors in one sentence with an exit code, and starts quickly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployment import PROJECT_ROOT, cli
from deployment.commands import clean
from deployment.environment_variables import only
from flows import __version__

LOCAL_COMMANDS = ("demo", "up", "upload", "status", "read", "redrive", "pause", "resume", "repair", "clean")
COMMANDS = (*LOCAL_COMMANDS, "deploy", "destroy")
# A user's configuration, which must not make a difference.
_USERS_OWN = {
    "AWS_PROFILE": "production",
    "AWS_ACCESS_KEY_ID": "AKIAUSERSOWNKEY",
    "AWS_SECRET_ACCESS_KEY": "users-own-secret",
    "PREFECT_API_URL": "http://127.0.0.1:1/api",
}


def sluice(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the sluice command as a user with AWS and Prefect configuration would."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "sluice"), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(home), **_USERS_OWN},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_describes_itself_and_its_options(command: str) -> None:
    shown = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert ("--state" in shown.output) == (command in LOCAL_COMMANDS)
    assert ("--stack" in shown.output) == (command not in ("demo", "up", "clean"))
    options = [line.split() for line in shown.output.splitlines() if line.strip().startswith("--")]
    assert [words[0] for words in options if len(words) < 3] == [], "an option without help"


def test_the_commands_are_the_ones_that_are_documented() -> None:
    assert {command.callback.__name__ for command in cli.app.registered_commands if command.callback} == set(COMMANDS)


@pytest.mark.parametrize("arguments", [("status",), ("upload", __file__)])
def test_without_a_running_cloud_a_command_explains_how_to_start_one(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = sluice(*arguments, "--state", str(tmp_path / "state"), home=tmp_path)
    assert done.returncode == cli.EXIT_CANNOT
    assert "No local cloud is running" in done.stderr
    assert "make up" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_shown_without_a_command() -> None:
    shown = CliRunner().invoke(cli.app, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"sluice {__version__}\n")


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    done = sluice("status", "--limit", "0", home=tmp_path)
    assert done.returncode == 2
    assert "--limit" in done.stderr


def test_an_internal_error_is_one_sentence_with_the_details_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.delenv("SLUICE_STATE", raising=False)
    monkeypatch.setattr(cli, "app", lambda **_: broken())
    monkeypatch.setattr(cli, "DEFAULT_STATE", tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == cli.EXIT_INTERNAL
    said = capsys.readouterr().err
    assert "ZeroDivisionError: nobody thought of this" in said
    assert "Traceback" not in said
    assert "Traceback" in (tmp_path / "logs" / "sluice-error.log").read_text()


@pytest.mark.parametrize("given", ["option", "variable"])
def test_the_details_of_an_internal_error_are_kept_in_the_given_state_folder(
    given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    state = tmp_path / "state"
    arguments = ["--state", str(state)] if given == "option" else []
    monkeypatch.setattr(clean, "clean", broken)
    monkeypatch.setattr(cli, "DEFAULT_STATE", tmp_path / "elsewhere")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["sluice", "clean", *arguments])
    if given == "variable":
        monkeypatch.setenv("SLUICE_STATE", str(state))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == cli.EXIT_INTERNAL
    log = state / "logs" / "sluice-error.log"
    assert f"The details are in {log}" in capsys.readouterr().err
    assert "ZeroDivisionError" in log.read_text()
    assert not (tmp_path / "elsewhere").exists()


def test_without_the_option_the_details_are_kept_in_the_state_folder_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setenv("SLUICE_STATE", str(tmp_path))
    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit):
        cli.main()
    assert (tmp_path / "logs" / "sluice-error.log").exists()


def test_the_variables_of_the_user_are_removed_for_a_command_and_restored_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in _USERS_OWN.items():
        monkeypatch.setenv(name, value)
    with only({"AWS_REGION": "eu-central-1"}):
        assert {name for name in os.environ if name.startswith(("AWS_", "PREFECT_"))} == {"AWS_REGION"}
    assert {name: os.environ[name] for name in _USERS_OWN} == _USERS_OWN
    assert "AWS_REGION" not in os.environ


def test_the_notification_settings_are_passed_to_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"SLUICE_NOTIFY_URL": "https://hooks.example/1", "SLUICE_NOTIFY_QUARANTINED_PERCENT": "5"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "app", lambda obj, **_: seen.extend([dict(os.environ), obj]))
    cli.main()
    assert [{name: each.get(name) for name in settings} for each in seen] == [settings, settings]


def test_the_command_starts_without_heavy_imports() -> None:
    """Some of these libraries take seconds to import, and `sluice --help` does not need them."""
    heavy = {"prefect", "pandas", "great_expectations", "boto3"}
    code = f"import sys, deployment.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_status_and_upload_import_no_pandas() -> None:
    """`sluice status` and `sluice upload` are used often, and importing pandas would take longer than their work."""
    heavy = {"prefect", "pandas", "pyarrow", "great_expectations"}
    code = f"import sys, deployment.commands.status, deployment.commands.upload; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()"
