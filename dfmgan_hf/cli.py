"""`dfmgan`: all that a person who installed the package does from a command line.

    dfmgan draw --model models/dfmgan-magnetic-tile --output_dir out
    dfmgan train stage2 --help

Each subcommand is a function of the package; the files in examples/ start the same functions, for `accelerate launch`.
The module of a subcommand is imported when it is chosen.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

COMMANDS = {
    "draw": ("dfmgan_hf.export.generate:draw", "Draw a few samples, and a contact sheet of them"),
    "generate": ("dfmgan_hf.export.generate:generate", "Draw a data set of triplets in bulk"),
    "paint": ("dfmgan_hf.export.paint:paint_dataset", "Paint defects into your own photographs"),
    "check": ("dfmgan_hf.data.doctor:check_dataset", "Say what is wrong with photographs and masks"),
    "split": ("dfmgan_hf.data.partitions:split_dataset", "List what to train on and what to test on, by parts"),
    "cut-patches": ("dfmgan_hf.data.patches:cut_dataset", "Cut large photographs into patches"),
    "train": ("dfmgan_hf.methods.train:train", "Train stage1, stage2, or a method to compare with"),
    "sample": ("dfmgan_hf.methods.write_samples:write_samples_from_arguments", "Draw images in bulk from any method"),
    "prove": ("dfmgan_hf.prove.experiment:prove", "Find out whether generated defects make a detector better"),
    "evaluate": ("dfmgan_hf.evaluation:measure", "Measure a model or a folder of images"),
    "card": ("dfmgan_hf.hub.cards:make_card", "Write the card of a model"),
    "models": ("dfmgan_hf.hub.zoo:print_models", "List the models at hand, or those of somebody on the Hub"),
    "push": ("dfmgan_hf.hub.push:publish", "Publish a model or results on the Hub"),
    "convert": ("dfmgan_hf.conversion.official:convert", "Convert a snapshot of the official code"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the subcommand that the first argument names: what `dfmgan` starts."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    name, *options = arguments
    if name not in COMMANDS:
        sys.exit(_refuse(f"There is no subcommand {name!r}.\n\n{usage()}"))
    module, _, function = COMMANDS[name][0].partition(":")
    with exit_on_user_error():
        chosen = getattr(importlib.import_module(module), function)
    run(chosen, options, prog=f"dfmgan {name}")


def usage() -> str:
    """Return what `dfmgan --help` prints."""
    rows = "\n".join(f"  {name:<12} {summary}" for name, (_, summary) in COMMANDS.items())
    return f"usage: dfmgan SUBCOMMAND [options]\n\n{rows}\n\n`dfmgan SUBCOMMAND --help` lists the options of one."


def run(
    function: Callable[..., Any],
    arguments: Sequence[str] | None = None,
    *,
    prog: str | None = None,
    default: Any = None,
) -> None:
    """Call a function with the options of a command line; a user's mistake ends it with a message alone.

    Args:
        function: takes `config`, a dataclass that says what the options are, or `arguments`, which it reads itself;
            and, where a launch of several processes may share the work, `processes`. An int that it returns is the
            exit status.
        arguments: the command line; None for the program's own.
        prog: what the help calls the program.
        default: the config that options change.

    Raises:
        SystemExit: always, at the end.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parameters = inspect.signature(function).parameters
    given: dict[str, Any] = {}
    with exit_on_user_error(), _warnings_as_text():
        if "config" in parameters:
            import tyro

            given["config"] = tyro.cli(
                typing.get_type_hints(function)["config"],
                prog=prog,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes,),
                **({} if default is None else {"default": default}),
            )
        else:
            given["arguments"] = arguments
        if "processes" in parameters:
            from accelerate import Accelerator

            from .processes import ProcessGroup

            given["processes"] = ProcessGroup(Accelerator())
        status = function(**given)
        sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Exit with status 2 and the message alone on errors that the user can fix.

    These are the package's own errors, wrong values, files that cannot be read or written, libraries of extras that
    are not installed, and too little memory. Anything else is a fault of the program and keeps its traceback; with
    the environment variable DFMGAN_TRACEBACK set, all do.

    Raises:
        SystemExit: with status 2; the message is on standard error. With 130 on Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get("DFMGAN_TRACEBACK") or not is_user_error(error):
            raise
        hint = "" if _is_own(error) else "\nSet DFMGAN_TRACEBACK=1 to see where this was raised."
        raise SystemExit(_refuse(f"Error: {error}{hint}")) from error


@contextmanager
def _warnings_as_text() -> Iterator[None]:
    """Print what the package warns of as text alone, without the file, the line and the code that warned."""
    usual = warnings.formatwarning

    def in_words(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        if os.path.realpath(filename).startswith(os.path.dirname(os.path.realpath(__file__)) + os.sep):
            return f"Warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = in_words  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = usual


def is_user_error(error: Exception) -> bool:
    """Return whether an error is one that the user can do something about."""
    is_memory = type(error).__name__ == "OutOfMemoryError"
    return _is_own(error) or is_memory or isinstance(error, (ValueError, OSError, ImportError, MemoryError))


def _is_own(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] == "dfmgan_hf"


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
