"""An attempt with its task's hooks around it: setup, the function, success or failure, teardown, in that order.

What the function, or its setup, comes to is the attempt's conclusion, and nothing that the later hooks do changes it:
their failures are told and passed over, and each has a grace of its own, which no timeout or cancellation shortens. An
`async def` task is driven on the loop, and so are its hooks. A plain one has its thread for itself and its plain hooks;
`async` ones are carried to the loop and waited for. Knows a run and its hooks; how a conclusion is drawn, and what is
done with a hook that fails, is its owner's business.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from math import inf
from typing import Any, Protocol

import anyio
from attrs import frozen

from ..model.clock import Clock
from ..model.execution import Ending
from ..model.hooks import Fitted, Hooks
from ..storage.threads import EventLoopHandle
from .outcomes import FAILED, Conclusion
from .running import Run, discard


class Owner(Protocol):
    """What the worker pool does for an attempt with hooks. For the event loop's thread."""

    def conclude(self, run: Run, value: object, error: BaseException | None) -> Conclusion:
        """Draw the conclusion, if it is not drawn yet: from then on nothing stops the run."""
        ...

    def hook_failed(self, run: Run, hook: str, error: BaseException | None) -> None:
        """A hook has failed; without an error it took longer than its grace."""
        ...

    def spawn(self, context: Context, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run this in that context, beside the workers. Raises `RuntimeError` when the pool has ended."""
        ...


@frozen
class Hooked:
    """One attempt of a task that has hooks. `refusal` is why its function cannot be called at all."""

    run: Run
    hooks: Hooks
    function: Callable[..., Any]
    refusal: BaseException | None
    owner: Owner
    loop: EventLoopHandle
    clock: Clock
    grace: float

    # ---- on the loop

    async def on_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Run all of it on the loop. Gives or raises what the function has given or raised."""
        return await self._around(lambda: self.function(*args, **kwargs), self.hooks.on_setup)

    async def _around(self, call: Callable[[], Any], setup: Fitted | None) -> Any:
        value: Any = None
        error = self.refusal
        try:
            if error is None:
                await self._await(setup)
                value = call()
                value = await value if inspect.isawaitable(value) else value
        except GeneratorExit:
            raise  # it is being closed, and nothing can be awaited any more
        except BaseException as raised:  # raised again, when the hooks have been called
            error = raised
        error = await self._end(self.owner.conclude(self.run, value, error)) or error
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # its traceback leads back to this frame: a circle would keep alive all that either knows

    async def _end(self, conclusion: Conclusion) -> KeyboardInterrupt | None:
        """Call the hooks after the function."""
        interrupt: KeyboardInterrupt | None = None
        for name, hook, more in self._at_the_end(conclusion):
            try:
                await self._within_grace(name, partial(self._await, hook, *more))
            except GeneratorExit:
                raise
            except BaseException as raised:  # a stray cancellation too: ours does not come through the shield
                self.owner.hook_failed(self.run, name, raised)
                interrupt = raised if isinstance(raised, KeyboardInterrupt) else interrupt
        return interrupt

    async def _within_grace(self, name: str, hook: Callable[[], Awaitable[None]]) -> None:
        with anyio.CancelScope(shield=True):
            with self.clock.wake_after(self.grace) as waiting:
                await hook()
            if waiting.fired:
                self.clock.activity.ended()
            if waiting.expired:
                self.owner.hook_failed(self.run, name, None)

    async def _await(self, hook: Fitted | None, *more: object) -> None:
        given = self._call(hook, *more)
        if inspect.isawaitable(given):
            await given

    # ---- in a thread

    def in_thread(self, *args: Any, **kwargs: Any) -> Any:
        """Run all of it in this thread. Gives or raises what the function has given or raised.

        A function that gives an awaitable goes on on the loop, hooks and all: that is what is given then.
        """
        value: Any = None
        error = self.refusal
        try:
            if error is None:
                self._wait_for(self._call(self.hooks.on_setup), self._until_stopped)
                if self.hooks.on_setup is None or not self.run.cancelled:  # a stop as the setup ends reaches nobody
                    value = self.function(*args, **kwargs)
        except BaseException as raised:
            error = raised
        if error is None and inspect.isawaitable(value) and (value := self._unless_stopped(value)) is not None:
            return self._around(partial(self._unless_stopped, value), None)
        error = self._end_in_thread(self._conclude(value, error)) or error
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # as above

    def _unless_stopped(self, given: Awaitable[Any]) -> Awaitable[Any] | None:
        """What a plain function has given, if it is still to be awaited."""
        if not self.run.cancelled:
            return given
        discard(given)
        return None

    def _conclude(self, value: object, error: BaseException | None) -> Conclusion:
        """There is a conclusion already if this thread was abandoned."""
        return self.run.conclusion or self._on_loop(self.owner.conclude, self.run, value, error)

    def _end_in_thread(self, conclusion: Conclusion) -> KeyboardInterrupt | None:
        interrupt: KeyboardInterrupt | None = None
        for name, hook, more in self._at_the_end(conclusion):
            conclusion.hook = name
            try:
                self._wait_for(self._call(hook, *more), partial(self._within_grace, name), told_if_left=True)
            except BaseException as raised:
                self.loop.call_soon(self.owner.hook_failed, self.run, name, raised)
                interrupt = raised if isinstance(raised, KeyboardInterrupt) else interrupt
        return interrupt

    def _wait_for(
        self,
        given: object,
        bound: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
        *,
        told_if_left: bool = False,
    ) -> None:
        """If a hook has given an awaitable, have it awaited on the loop, and wait for that."""
        if not inspect.isawaitable(given):
            return
        answer: Future[None] = Future()

        async def there() -> None:
            try:
                await bound(lambda: _answer(given, answer, told_if_left))
            finally:
                if not answer.done():
                    answer.set_result(None)  # it took longer than it may

        try:
            # In a context like the run's own, so that `current_execution()` knows it.
            self._on_loop(self.owner.spawn, copy_context(), there)
        except RuntimeError:
            discard(given)
            raise
        answer.result()

    async def _until_stopped(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Await the setup of a plain function: what stops the run cancels it."""
        with anyio.CancelScope() as scope:
            self.run.scope = scope
            if self.run.stop is not None:
                scope.cancel()
            try:
                await hook()
            finally:
                self.run.scope = None

    def _on_loop(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call this on the loop, and wait for what it gives."""
        answer: Future[Any] = Future()
        if not self.loop.call_soon(_call_and_answer, answer, function, arguments):
            raise RuntimeError("the event loop has ended")
        return answer.result()

    # ---- both

    def _at_the_end(self, conclusion: Conclusion) -> Iterator[tuple[str, Fitted, tuple[object, ...]]]:
        """The hooks that are called after the function, with what they are given beside the execution."""
        hooks, ending = self.hooks, conclusion.outcome.ending
        if hooks.on_success is not None and ending is Ending.SUCCEEDED:
            yield "on_success", hooks.on_success, (conclusion.result,)
        if hooks.on_failure is not None and ending in FAILED:
            yield "on_failure", hooks.on_failure, (conclusion.error,)
        if hooks.on_teardown is not None:
            yield "on_teardown", hooks.on_teardown, ()

    def _call(self, hook: Fitted | None, *more: object) -> Any:
        return None if hook is None else hook.function(*(self.run, *more)[: hook.takes])


def _call_and_answer(answer: Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer.set_result(function(*arguments))
    except BaseException as error:
        answer.set_exception(error)


async def _answer(given: Awaitable[Any], answer: Future[None], told_if_left: bool) -> None:
    """Await what a hook has given, for the thread that waits for it. `told_if_left`: its time has an end."""
    ours = anyio.get_cancelled_exc_class(), GeneratorExit
    try:
        await given
    except BaseException as error:
        left = isinstance(error, ours) and anyio.current_effective_deadline() == -inf
        if not (left and told_if_left):
            answer.set_exception(error)
        if left:
            raise  # a stray one must not reach the pool
    else:
        answer.set_result(None)
