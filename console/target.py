"""From `module:scheduler` or `clepsydra.toml` on the command line to the scheduler, with help for whoever mistypes it.

The current directory is looked in first, as `python -m` does. The attribute is a `Scheduler`, or a function without
arguments that makes one. Importing the module runs the user's code, and what that raises is told as what it is.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from .. import ClepsydraError, Scheduler
from .errors import CommandError, UsageError

EXAMPLE = "jobs:scheduler"


def load_scheduler(target: str) -> Scheduler:
    """The scheduler that a `module:attribute` names, or a file of declarations.

    Raises `CommandError`, or `DeclarationError`, with what to do about it.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if is_file(target):
        return Scheduler.from_toml(target)
    module_name, attribute = _parts(target)
    module = _imported(module_name)
    return _made(_found(module, module_name, attribute), target)


def is_file(target: str) -> bool:
    """Whether it is a file that declares a scheduler, and not code."""
    return target.endswith(".toml")


def _parts(target: str) -> tuple[str, str]:
    module, colon, attribute = target.partition(":")
    if module.endswith(".py") or os.sep in module:
        dotted = module.removesuffix(".py").removeprefix("./").replace(os.sep, ".").strip(".")
        raise UsageError(f"{target!r} is a path; name the module: '{dotted}:{attribute or 'scheduler'}'")
    if not colon:
        raise UsageError(f"{target!r} does not say which scheduler; write module:attribute, as in '{module}:scheduler'")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise UsageError(f"{target!r} is not read; write module:attribute, as in '{EXAMPLE}'")
    return module, attribute


# --- the module ----------------------------------------------------------------------------------------------------


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_failed(name, error) from error
        raise UsageError(f"no module is called {error.name!r}{_similar_module(error.name)}") from error
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error


def _similar_module(name: str) -> str:
    package, _, last = name.rpartition(".")
    paths = getattr(sys.modules[package], "__path__", ()) if package in sys.modules else [os.getcwd()]
    here = [module.name for module in pkgutil.iter_modules(paths)]
    where = f"in {package!r}" if package else f"in {os.getcwd()} or where Python looks"
    return f" {where}{did_you_mean(last, here)}"


def _import_failed(name: str, error: BaseException) -> CommandError:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    ours = [frame for frame in frames if _is_users(frame.filename)]
    at = f" ({os.path.relpath(ours[-1].filename)}, line {ours[-1].lineno})" if ours else ""
    what = str(error) if isinstance(error, ClepsydraError) else f"{type(error).__name__}: {error}"
    return CommandError(f"importing {name!r} failed{at}: {what}")


def _is_users(filename: str) -> bool:
    here = os.path.abspath(filename).startswith(os.getcwd() + os.sep)
    return here and not filename.startswith("<") and "site-packages" not in filename


# --- the attribute -------------------------------------------------------------------------------------------------


def _found(module: ModuleType, module_name: str, attribute: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [name for name in vars(module) if not name.startswith("_")]
            raise UsageError(f"module {module_name!r} has no {part!r}{_schedulers_in(module, part, known)}")
        found = getattr(found, part)
    return found


def _schedulers_in(module: ModuleType, wanted: str, known: Iterable[str]) -> str:
    schedulers = [name for name, thing in vars(module).items() if isinstance(thing, Scheduler)]
    if schedulers:
        return f"; its schedulers: {', '.join(map(repr, schedulers))}"
    return did_you_mean(wanted, known)


def did_you_mean(wanted: str, known: Iterable[str]) -> str:
    """What follows an error about a name: the known one that is most like it, if one is."""
    close = difflib.get_close_matches(wanted, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _made(found: Any, target: str) -> Scheduler:
    """The scheduler itself, or what the factory makes."""
    if isinstance(found, Scheduler):
        return found
    if not callable(found):
        raise UsageError(f"{target!r} is {_a(found)}; it must be a Scheduler, or a function that makes one")
    made = _called(found, target)
    if inspect.iscoroutine(made):
        made.close()
        raise UsageError(f"{target!r} is an async function; write a plain one that makes the Scheduler")
    if not isinstance(made, Scheduler):
        raise UsageError(f"{target!r} gives {_a(made)}; it must give a Scheduler")
    return made


def _called(factory: Any, target: str) -> Any:
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UsageError(f"{target!r} must be callable without arguments: {error}") from None
    except ValueError:
        pass  # a builtin without a signature: try it
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise CommandError(f"{target!r} failed: {type(error).__name__}: {error}") from error


def _a(thing: object) -> str:
    name = type(thing).__name__
    return "None" if thing is None else f"a{'n' * (name[0].lower() in 'aeiou')} {name}"
