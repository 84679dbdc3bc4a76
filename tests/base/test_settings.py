"""Settings, from arguments and from OBSLOOP_* variables: what is wrong is named, with what is accepted."""

import dataclasses
import os
import re

import pytest

import obsloop
from obsloop import Settings, SettingsError, SpanSettings
from tests.support import output, program


def test_without_any_there_are_defaults():
    """No name, no service, and a second until a callback is called blocked."""
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.name, settings.address, settings.unhealthy_after) == (None, None, 1.0)


def test_arguments_and_variables_say_the_same():
    """Each setting by either way."""
    variables = {"OBSLOOP_NAME": "api", "OBSLOOP_ADDRESS": "127.0.0.1:0", "OBSLOOP_UNHEALTHY_AFTER": "2.5", "PATH": "/"}
    assert Settings.from_env(variables) == Settings(name="api", address="127.0.0.1:0", unhealthy_after=2.5)
    variables = {"OBSLOOP_SOCKET_MODE": "0660", "OBSLOOP_ALLOWED_HOSTS": "a.example, b"}
    assert Settings.from_env(variables) == Settings(socket_mode=0o660, allowed_hosts="a.example, b")


def test_an_empty_variable_is_none():
    """As a shell leaves it that cannot unset."""
    assert Settings.from_env({"OBSLOOP_NAME": "", "OBSLOOP_ADDRESS": "", "OBSLOOP_UNHEALTHY_AFTER": ""}) == Settings()


BAD = [
    ("name", "x" * 101, "name of 1 to 100 printable characters"),
    ("name", "two\nlines", "printable"),
    ("address", "localhost", "expected HOST:PORT"),
    ("address", ":9464", "no host before the colon"),
    ("address", "localhost:port", "not a port, a whole number from 0 to 65535"),
    ("address", "localhost:70000", "not a port, a whole number from 0 to 65535"),
    ("address", "::1:9464", "square brackets"),
    ("address", "127.0.0.1:9464 /metric", "did you mean /metrics?"),
    ("address", "unix:obsloop.sock", "expected unix: and an absolute path"),
    ("socket_mode", "rw", "in a variable octal: 0660"),
    ("socket_mode", "0666666", "in a variable octal: 0660"),
    ("allowed_hosts", "http://a", "host names with commas between them"),
    ("allowed_hosts", "a,", "host names with commas between them"),
    ("allowed_hosts", "*.example.org", "host names with commas between them"),
    ("unhealthy_after", "soon", "number of seconds above 0"),
    ("unhealthy_after", "0", "number of seconds above 0"),
    ("unhealthy_after", "-1", "number of seconds above 0"),
    ("unhealthy_after", "inf", "number of seconds above 0"),
    ("unhealthy_after", "nan", "number of seconds above 0"),
    ("lints", "maybe", "; expected True or False (in a variable 1 or 0, yes or no"),
    ("lints", "Flase", "did you mean false? expected True or False"),
    ("never_yields_after", "long", "number of seconds above 0"),
    ("never_woken_after", "?", "number of seconds above 0"),
    ("growing_after", "-", "number of seconds above 0"),
    ("growing_by", "1.5", "whole number above 0"),
    ("growing_by", "many", "whole number above 0"),
    ("starved_after", "0", "number of seconds above 0"),
]


@pytest.mark.parametrize(("name", "text", "accepted"), BAD, ids=lambda v: str(v)[:20])
def test_a_bad_variable_is_named_with_its_value_and_what_is_accepted(name, text, accepted):
    """The message says where the value came from, what it was and what would do."""
    with pytest.raises(SettingsError) as raised:
        Settings.from_env({f"OBSLOOP_{name.upper()}": text})
    message = str(raised.value)
    assert message.startswith(f"variable OBSLOOP_{name.upper()}: ")
    assert accepted in message
    if (not name.endswith("_after") or text == "soon") and text != "0666666":  # a number is shown as a number
        assert repr(text) in message


BAD_ARGUMENTS = [
    ("name", "", "printable"), ("name", 7, "printable"), ("address", 9464, '"HOST:PORT"'), ("address", "", "no port"),
    ("lints", 1, "True or False"), ("growing_by", 0, "whole number above 0"), ("growing_by", True, "whole number"),
    ("growing_by", 2.0, "whole number"), ("never_woken_after", 0, "seconds"), ("never_yields_after", -1, "seconds"),
    ("unhealthy_after", "1", "seconds"), ("unhealthy_after", True, "seconds"), ("unhealthy_after", None, "seconds"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "accepted"), [*BAD_ARGUMENTS, *((n, t, "expected") for n, t, _ in BAD[:7])])
def test_a_bad_argument_is_named_with_its_value_and_what_is_accepted(name, value, accepted):
    """The same for arguments."""
    with pytest.raises(SettingsError, match=rf"^argument {name}: ") as raised:
        Settings(**{name: value})
    assert repr(value) in str(raised.value)
    assert accepted in str(raised.value)


def test_an_unknown_variable_is_an_error_with_the_nearest_known():
    """A typing error does not pass in silence. Without a near name, the message lists all."""
    for variable, problem in (
        ("OBSLOOP_ADRESS", "unknown variable OBSLOOP_ADRESS; did you mean OBSLOOP_ADDRESS?"),
        ("OBSLOOP_Lint", "unknown variable OBSLOOP_Lint; did you mean OBSLOOP_LINTS?"),
        ("OBSLOOP_XYZ", f"unknown variable OBSLOOP_XYZ; accepted: {', '.join(KNOWN)}"),
    ):
        with pytest.raises(SettingsError) as raised:
            Settings.from_env({variable: "127.0.0.1:9464"})
        assert str(raised.value) == problem


KNOWN = (*Settings.variables(), *SpanSettings.variables())


def test_several_bad_variables_are_one_error_that_names_them_all():
    """One start shows all that must be mended."""
    with pytest.raises(SettingsError) as raised:
        Settings.from_env({"OBSLOOP_LINTS": "maybe", "OBSLOOP_SLOW_JOB": "-1", "OBSLOOP_ADRESS": "h:1"})
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    for variable, line in zip(("OBSLOOP_LINTS", "OBSLOOP_SLOW_JOB", "OBSLOOP_ADRESS"), lines, strict=True):
        assert f"variable {variable}" in line


@pytest.mark.parametrize("name", ["adress", "Address"])
def test_an_unknown_argument_is_a_type_error_with_the_nearest_known(name):
    """As for any function of Python, but the message helps."""
    with pytest.raises(TypeError, match=f"^Settings has no setting '{name}'; did you mean address\\?$"):
        Settings(**{name: "h:1"})
    with pytest.raises(TypeError, match=r"^SpanSettings has no setting 'xyz'$"):
        SpanSettings(xyz=1)


def test_the_settings_of_spans_are_apart_and_held_to_the_same():
    """Either kind accepts the other's variables, and says what is wrong with its own."""
    variables = {
        "OBSLOOP_NAME": "api", "OBSLOOP_SPANS_PER_MINUTE": "7", "OBSLOOP_SLOW_JOB": "0",
        "OBSLOOP_SLOW_CONNECTION": "2.5",
    }  # fmt: skip
    assert Settings.from_env(variables) == Settings(name="api")
    assert SpanSettings.from_env(variables) == SpanSettings(spans_per_minute=7, slow_job=0, slow_connection=2.5)
    assert SpanSettings.from_env({"OBSLOOP_SLOW_JOB": ""}) == SpanSettings()
    for name, bad, accepted in (
        ("spans_per_minute", "1.5", "whole number from 0 to 1000000"),
        ("spans_per_minute", "-1", "whole number from 0 to 1000000"),
        ("slow_job", "-1", "number of seconds, 0 or above"),
        ("slow_connection", "nan", "number of seconds, 0 or above"),
    ):
        with pytest.raises(SettingsError, match=f"^variable OBSLOOP_{name.upper()}: .*{accepted}"):
            SpanSettings.from_env({f"OBSLOOP_{name.upper()}": bad})
        with pytest.raises(SettingsError, match=f"^argument {name}: .*{accepted}"):
            SpanSettings(**{name: bad})
    with pytest.raises(SettingsError, match=r"OBSLOOP_SPANS_PER_MINUT; did you mean OBSLOOP_SPANS_PER_MINUTE\?"):
        SpanSettings.from_env({"OBSLOOP_SPANS_PER_MINUT": "7"})


def test_variables_that_are_no_settings_are_left_alone():
    """The switch of the core, and what Kubernetes puts into every container beside a Service called obsloop."""
    others = {
        "OBSLOOP_PURE": "1",
        "OBSLOOP_RUN_WARNED": "uvloop",
        "OBSLOOP_PORT": "tcp://10.0.0.1:9464",
        "OBSLOOP_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "OBSLOOP_PORT_9464_TCP_PORT": "9464",
        "OBSLOOP_SERVICE_HOST": "10.0.0.1",
        "OBSLOOP_SERVICE_PORT": "9464",
        "OBSLOOP_SERVICE_PORT_METRICS": "9464",
    }
    assert Settings.from_env(others) == Settings()


def test_settings_do_not_change():
    """Frozen, comparable, and a settings error is a ValueError."""
    settings = Settings(name="a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.name = "b"
    assert dataclasses.replace(settings, name="b") == Settings(name="b")
    assert issubclass(SettingsError, ValueError)


@pytest.mark.parametrize(
    "make", ["Loop()", "new_event_loop()", "run(main())", "instrument(asyncio.SelectorEventLoop())"]
)
def test_bad_variables_stop_no_loop_and_are_logged_once(make):
    """Each is named with what is expected and what obsloop does. The other variables hold."""
    done = program(
        f"""
        import asyncio, obsloop
        async def main(): print(asyncio.get_running_loop()._obsloop.settings.unhealthy_after)
        for _ in range(2):
            loop = obsloop.{make}
            if loop is not None:
                loop.run_until_complete(main())
                loop.close()
        print(*obsloop.snapshots())
        """,
        OBSLOOP_UNHEALTHY_AFTER="never",
        OBSLOOP_ADRESS="127.0.0.1:9464",
        OBSLOOP_ADDRESS="nowhere",
        OBSLOOP_NAME="api",
    )
    assert done.stdout == "1.0\n1.0\napi\n"
    # The logger has no handler: logging writes warnings to stderr as they are.
    by_variable = {re.findall("OBSLOOP_[A-Z_]*", line)[0]: line for line in done.stderr.splitlines()}
    assert len(by_variable) == done.stderr.count("\n") == 3
    assert by_variable["OBSLOOP_UNHEALTHY_AFTER"] == (
        "variable OBSLOOP_UNHEALTHY_AFTER: 'never' is not accepted; expected a number of seconds above 0, such as 2.5. "
        "obsloop uses the default, 1.0."
    )
    assert by_variable["OBSLOOP_ADRESS"].endswith("; did you mean OBSLOOP_ADDRESS? obsloop ignores it.")
    assert by_variable["OBSLOOP_ADDRESS"].endswith(". obsloop uses the default.")


def test_a_warning_goes_through_the_logger_and_a_broken_handler_breaks_no_loop():
    """The logger is `obsloop`; a filter of the program that raises is the program's own."""
    shown = output(
        """
        import logging, obsloop
        def stop(record):
            print(record.name, record.levelname, record.getMessage().partition(":")[0])
            raise RuntimeError
        logging.getLogger("obsloop").addFilter(stop)
        obsloop.new_event_loop().close()
        assert obsloop.Settings.from_env(strict=False).lints is True
        """,
        OBSLOOP_LINTS="maybe",
    )
    assert shown == "obsloop WARNING variable OBSLOOP_LINTS\n"


def test_the_variables_are_read_when_a_loop_is_made(clean_metrics, monkeypatch):
    """Not at import: a program may set them first."""
    monkeypatch.setenv("OBSLOOP_NAME", "late")
    loop = obsloop.new_event_loop()
    loop.snapshot()
    loop.close()
    assert set(obsloop.snapshots()) == {"late"}
    assert "OBSLOOP_NAME" in os.environ


def test_arguments_win_over_variables():
    """Settings that are given are the settings."""
    assert (
        output(
            """
            import obsloop
            loop = obsloop.new_event_loop(obsloop.Settings(name="argument"))
            loop.snapshot()
            loop.close()
            print(*obsloop.snapshots())
            """,
            OBSLOOP_NAME="variable",
        )
        == "argument\n"
    )


def test_help_shows_nothing_of_the_environment():
    """What documents the package, `help()` and the signature, must not print the secrets that a process is given."""
    shown = output(
        """
        import inspect, pydoc, obsloop
        for documented in (obsloop.Settings, obsloop.SpanSettings):
            print(pydoc.plain(pydoc.render_doc(documented)), inspect.signature(documented.from_env))
        assert obsloop.SpanSettings.from_env().slow_job == 7.0  # read when it is called, and not at the import
        """,
        A_TOKEN="s3cret",
        OBSLOOP_SLOW_JOB="7",
    )
    assert "from_env" in shown
    assert "s3cret" not in shown
