"""`clepsydra completion SHELL`: the script that makes bash, zsh or fish complete commands, options, and names of jobs.

The script asks this program what may follow (`clepsydra __complete WORD...`; the last word is the one begun). What it
answers is read from the parser itself; names of jobs come from the store that the words or the environment name. Where
it has nothing to say the shell completes names of files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from .. import ClepsydraError
from .arguments import AddCommand, add_command
from .errors import OK, CommandError
from .stores import operator_of

ASKED_BY_SHELLS: Final = "__complete"
_MOST_NAMES: Final = 1000

_BASH: Final = """\
# clepsydra completion bash: eval "$(clepsydra completion bash)" in ~/.bashrc
_clepsydra() {
    local IFS=$'\\n' word
    COMPREPLY=()
    for word in $(clepsydra __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
        COMPREPLY+=("$(printf '%q' "$word")")
    done
}
complete -o default -F _clepsydra clepsydra
"""
_ZSH: Final = """\
#compdef clepsydra
# clepsydra completion zsh: eval "$(clepsydra completion zsh)" in ~/.zshrc, after compinit
_clepsydra() {
    local -a found
    found=("${(@f)$(clepsydra __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then
        compadd -- "${found[@]}"
    else
        _files
    fi
}
compdef _clepsydra clepsydra
"""
_FISH: Final = """\
# clepsydra completion fish: clepsydra completion fish > ~/.config/fish/completions/clepsydra.fish
function __clepsydra_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (clepsydra __complete $words[2..-1] 2>/dev/null)
    if set -q found[1]
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c clepsydra -f -a '(__clepsydra_complete)'
"""
SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def add_completion(add: AddCommand) -> None:
    """`clepsydra completion`."""
    command = add_command(add, "completion", _print, "print the script that completes commands in your shell")
    command.add_argument("shell", choices=sorted(SCRIPTS))


def _print(arguments: argparse.Namespace) -> int:
    sys.stdout.write(SCRIPTS[arguments.shell])
    return OK


def complete(top: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Print what may stand in the place of the last word."""
    for word in candidates(top, words):
        print(word)
    return OK


def candidates(top: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """What may stand in the place of the last word, after the others."""
    *before, begun = words or [""]
    commands = _commands(top)
    name = next((word for word in before if not word.startswith("-")), None)
    if name is None:
        return _beginning([*commands, *_options(top, begun)], begun)
    command = commands.get(name)
    if command is None:
        return []
    said = before[before.index(name) + 1 :]
    if said and (action := _awaiting_value(command, said[-1])) is not None:
        return _beginning(_values(action, said), begun)
    if begun.startswith("-"):
        return _beginning(_options(command, begun), begun)
    return _beginning((value for action in _positionals(command) for value in _values(action, said)), begun)


def _beginning(found: Iterable[str], begun: str) -> list[str]:
    return [each for each in found if each.startswith(begun)]


def _commands(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in _actions(top):
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            commands: dict[str, argparse.ArgumentParser] = dict(action.choices)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
            return commands
    return {}


def _actions(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return command._actions  # pyright: ignore[reportPrivateUsage] - argparse has no public way to ask


def _options(command: argparse.ArgumentParser, begun: str) -> list[str]:
    """Long ones; short ones too where one is begun."""
    options = [option for action in _actions(command) for option in action.option_strings]
    return [option for option in options if begun.startswith("-") and (option.startswith("--") or begun == "-")]


def _positionals(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in _actions(command) if not action.option_strings]


def _awaiting_value(command: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    """The option that this word is, if a value of it follows."""
    return next((one for one in _actions(command) if word in one.option_strings and one.nargs != 0), None)


def _values(action: argparse.Action, said: Sequence[str]) -> Iterator[str]:
    """What an argument may be, as far as that can be known."""
    if action.choices is not None:
        yield from map(str, action.choices)
    elif action.metavar == "JOB":
        yield from _names_of_jobs(said)


def _names_of_jobs(said: Sequence[str]) -> list[str]:
    at = [number for number, word in enumerate(said[:-1]) if word == "--store"]
    store = said[at[-1] + 1] if at else None
    try:
        with operator_of(argparse.Namespace(store=store)) as operator:
            return [record.name for record in operator.list_jobs(limit=_MOST_NAMES).items]
    except (ClepsydraError, CommandError):
        return []  # a shell that completes is no place for errors
