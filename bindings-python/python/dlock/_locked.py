"""The decorator: a key made of a call's arguments, and the call under its lock."""

import functools
import inspect
import string

from ._dlock import InvalidArgument


def decorator(key, make, options):
    """Return what turns a function into one that runs under a lock."""

    def decorate(function):
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            kind = "a generator: its lock would be released before it ran; use `with` inside it"
            raise TypeError(f"{function.__qualname__} is {kind}")
        signature = inspect.signature(function)
        _check(key, signature, function)

        def lock_of(args, kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return make(key.format_map(bound.arguments), **options)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args, **kwargs):
                async with lock_of(args, kwargs):
                    return await function(*args, **kwargs)
        else:

            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                with lock_of(args, kwargs):
                    return function(*args, **kwargs)

        return wrapper

    return decorate


def _check(key, signature, function):
    """Complain of a name in the key that is no argument of the function."""
    for _, field, _, _ in string.Formatter().parse(key):
        if field is None:
            continue
        name = field.split(".")[0].split("[")[0]
        if name not in signature.parameters:
            there = ", ".join(signature.parameters) or "none"
            raise InvalidArgument(
                f"key {key!r} names {name or 'an argument by position'}, which {function.__qualname__} doesn't have; "
                f"its arguments: {there}"
            )
