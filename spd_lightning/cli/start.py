"""The program's first look at what was typed: what needs no model is done at once, the rest is handed on.

``--version``, ``--help``, misspelt names, simple values and the commands on what is finished load neither PyTorch nor
Lightning: help, names and kinds of options come from a file that is made from the live parser (`option_table`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from spd_lightning.errors import INTERRUPTED, UserError, disk_fault

if TYPE_CHECKING:
    from spd_lightning.cli.typed import Typed

LIGHT = ("report", "artifacts", "runs", "configs", "verify")  # they load no model
AT_EXIT_S = 3.0  # how long what libraries do at exit may take after a signal


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; see `program.main`.

    Args:
        args: What stands behind ``python -m spd_lightning``; None takes it from the command line.

    Returns:
        Exit status.
    """
    given = list(sys.argv[1:] if args is None else args)
    print_anything()
    if given != ["--version"]:
        from spd_lightning.cli.home import use_a_home

        use_a_home()
    if "LOCAL_RANK" not in os.environ:  # one of several processes tells nothing twice
        try:
            if at_once(given):
                return 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return 2
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr, flush=True)
            return 130
        except BrokenPipeError:  # `| head -1`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except Exception as error:
            if (fault := disk_fault(error)) is None:
                raise
            print(f"error: {fault}", file=sys.stderr, flush=True)
            return 2
    with ended_by_signals():
        from spd_lightning.cli.program import main as whole

    return whole(None if args is None else given)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have a signal end the process at once, while libraries are imported; one of several processes says so."""
    several = [os.environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ]

    def end(number: int, frame: FrameType | None) -> None:
        if not several or several[0] == "0":
            os.write(2, f"\n{INTERRUPTED}\n".encode())
        os._exit(128 + number)

    free = (signal.SIG_DFL, signal.default_int_handler)
    main_thread = threading.current_thread() is threading.main_thread()
    ours = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) in free]
    before = {number: signal.signal(number, end) for number in ours} if main_thread else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(status: int) -> NoReturn:
    """End the process; after a signal without the interpreter taking itself apart, which is seconds of a busy machine.

    What libraries do at exit is done, if it is done in `AT_EXIT_S` (an upload to W&B is not waited for).
    """
    if status > 128:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends it there and then, without a traceback
        late = threading.Timer(AT_EXIT_S, os._exit, [status])
        late.daemon = True
        late.start()
        atexit._run_exitfuncs()  # of Python 3.11: nothing public does it now
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # whoever read it has gone
                stream.flush()
        os._exit(status)
    sys.exit(status)


def print_anything() -> None:
    """Let output be written that its encoding does not hold, as ``\\xb1``: a plus-minus sign must end no run."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and stream.errors == "strict":
            reconfigure(errors="backslashreplace")


def at_once(given: Sequence[str]) -> bool:
    """Do what needs no model; False where it does.

    Raises:
        UserError: For a name that no command or option has, a value that is none of its option's kind, and what a light
            command says.
    """
    command, rest = given[0] if given else "", list(given[1:])
    if command == "--version":
        from spd_lightning import __version__

        print(f"spd_lightning {__version__}")
        return True
    from spd_lightning.cli.commands import COMMANDS

    if command in COMMANDS:
        return _small_command(command, rest)
    from spd_lightning.cli.option_table import load

    if (table := load()) is None:
        return False
    from spd_lightning.cli.config_file import read_config
    from spd_lightning.cli.help import section_of
    from spd_lightning.cli.kinds import check_values
    from spd_lightning.cli.names import FOLLOWS, STAGE_COMMANDS, check_names, file_options
    from spd_lightning.cli.typed import read_typed

    typed = read_typed(given, STAGE_COMMANDS, table.commands)
    if typed.command is None and not typed.rest:
        _refuse('expected "subcommand"', typed, [], table.commands)
    if typed.command is None or typed.help_of is None:
        print(table.help[typed.command or ""])
        return True
    if typed.help_of:
        print(section_of(table.help[typed.command], table.titles[typed.command], typed.help_of))
        return True
    known = file_options(table.options[typed.command])
    check_names(typed, known)
    files = [read_config(name, known, FOLLOWS, typed.command) for name in typed.configs]
    check_values(typed, files, table.kinds[typed.command], table.commands)
    return False


def _small_command(name: str, rest: list[str]) -> bool:
    from jsonargparse import ArgumentError

    from spd_lightning.cli.commands import COMMANDS, check_read, command_parser, options_last
    from spd_lightning.cli.help import actions_of, tidy
    from spd_lightning.cli.names import STAGE_COMMANDS
    from spd_lightning.cli.typed import Typed

    parser = command_parser(name)
    tidy(parser, name, False)
    try:
        options = parser.parse_args(options_last(name, rest))
    except ArgumentError as error:
        known = [option for action in actions_of(parser) for option in action.option_strings]
        _refuse(str(error), Typed(name, rest=rest), known, [*STAGE_COMMANDS, *COMMANDS])
    check_read(name, vars(options).get("action"), rest)
    if name not in LIGHT:
        return False
    COMMANDS[name](**vars(options))
    return True


def _refuse(said: str, typed: Typed, options: Sequence[str], commands: Sequence[str]) -> NoReturn:
    """Raise what there is to say of a parser's error."""
    from jsonargparse import ArgumentError

    from spd_lightning.cli.messages import explain

    raise UserError(explain(ArgumentError(None, said), commands, options, typed))
