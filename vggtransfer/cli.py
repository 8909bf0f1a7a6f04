"""The command line of `vggtransfer`: finds the command, calls it, and turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vggtransfer.commands import COMMANDS, Command, imported
from vggtransfer.errors import OptionError, VGGTransferError, did_you_mean
from vggtransfer.printable import printable

# A full disk, a read-only or forbidden place: nothing that a traceback would help with.
_NOT_OUR_FAULT = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}

_USAGE = """\
usage: vggtransfer COMMAND [--config RECIPE.yaml] [--option VALUE ...]
       vggtransfer COMMAND --help
       vggtransfer --version

Transfer learning and feature extraction with VGG networks.
"""


def main(arguments: Sequence[str] | None = None, commands: Sequence[Command] = COMMANDS) -> int:
    """Runs one command line and returns the exit code: the result's (0), 2 after a user's mistake, 130 after Ctrl-C."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  (for the rest of the process)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files and classes that the terminal cannot show
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments), commands)
        sys.stdout.flush()
        return code
    except VGGTransferError as error:
        print(f"error: {printable(' '.join(str(error).splitlines()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(str(interruption) or "interrupted", file=sys.stderr)
        return getattr(interruption, "exit_code", 130)
    except BrokenPipeError:
        try:
            print(flush=True)
        except BrokenPipeError:
            # It was standard output, as in `vggtransfer ... | head`. At exit the interpreter would flush it once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        raise
    except OSError as error:
        if error.errno not in _NOT_OUR_FAULT:
            raise
        print(f"error: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # as above
        return 2


def _run(arguments: list[str], commands: Sequence[Command]) -> int:
    if arguments[:1] == ["--version"]:
        from vggtransfer import __version__

        print(f"vggtransfer {__version__}")
        return 0
    for command in commands:
        words = command.name.split()
        if arguments[: len(words)] == words:
            return _run_command(command, arguments[len(words) :])
    return _list_commands(arguments, commands)


def _run_command(command: Command, arguments: list[str]) -> int:
    from vggtransfer.command_line.parser import CommandParser
    from vggtransfer.process_memory import keep_freed_memory
    from vggtransfer.recipe_files import resolved_recipe

    function = command.load()
    parser = CommandParser(command.name, function, positionals=command.positionals, sections=command.sections)
    request = parser.read(arguments)
    if request.wants_help:
        print(parser.format_help(), end="")
        return 0
    options = parser.options(request)
    if request.wants_recipe:
        print(resolved_recipe(command.name, options), end="")
        return 0
    if missing := parser.missing(request):
        raise OptionError(f"missing {' and '.join(parameter.place for parameter in missing)}")
    keep_freed_memory()
    run = options.get("resume")
    if command.resume is None or run is None:
        result = function(**options)
    else:
        result = imported(command.resume)(run, {name: options[name] for name in request.given if name != "resume"})
    return int(getattr(result, "exit_code", 0))


def _list_commands(arguments: list[str], commands: Sequence[Command]) -> int:
    """Lists all commands, or those that start with the words given."""
    words = [argument for argument in arguments if argument not in {"-h", "--help"}]
    listed = [command for command in commands if command.name.split()[: len(words)] == words]
    if not listed and words[0].startswith("-"):
        raise OptionError(f"unknown option '{words[0]}' before the command (vggtransfer COMMAND --option VALUE)")
    if not listed:
        in_group = any(command.name.startswith(f"{words[0]} ") for command in commands)
        written = " ".join(words[:2]) if in_group else words[0]
        raise OptionError(f"unknown command '{written}'{did_you_mean(written, [command.name for command in commands])}")
    asked = len(words) < len(arguments)
    width = max(len(command.name) for command in listed)
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in listed]
    print(_USAGE, "Commands:", *lines, sep="\n", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
