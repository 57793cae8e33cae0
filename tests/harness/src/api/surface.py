"""Prints the public names of the Python package, one a line: what it exports, the members of its classes, options."""

from __future__ import annotations

from typing import Any

import dlock

# Of the names with underscores these are operations: `with`, `async with`.
PROTOCOL = {"__enter__", "__exit__", "__aenter__", "__aexit__"}


def options() -> list[str]:
    """The options of a lock, from what is said of one that doesn't exist."""
    unknown: dict[str, Any] = {"no-such-option": 1}
    try:
        dlock.connect("memory://").lock("k", **unknown)
    except TypeError as error:
        return str(error).partition("there are: ")[2].split(", ")
    raise AssertionError("an option that doesn't exist was taken")


def main() -> None:
    """Prints all."""
    public = {name for name in vars(dlock) if not name.startswith("_")} | {"__version__"}
    for name in sorted(public ^ set(dlock.__all__)):
        print(f"! {name} is public or in dlock.__all__, but not both")
    lease = dlock.connect("memory://").lock("k")
    with lease as held:
        classes = {name: value for name, value in vars(dlock).items() if name in public and isinstance(value, type)}
        classes["Lost"] = type(held.lost)
    names = [*public, *classes, *(f"lock({option})" for option in options()), "lock(service)"]
    for name, class_ in classes.items():
        inherited = {member for base in class_.__mro__[1:] for member in vars(base)}
        members = [member for member in vars(class_) if member in PROTOCOL or not member.startswith("_")]
        members = [member for member in members if member not in inherited]
        names += [f"{name}.{member}" for member in members]
    print("\n".join(sorted(set(names))))


if __name__ == "__main__":
    main()
