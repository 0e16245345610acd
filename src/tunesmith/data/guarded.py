"""Chat templates are programs that came with a model: they run in a child process with little time and little memory.

transformers renders them in a sandbox that keeps them from Python's objects, and sets no limit: three nested loops or
`'a' * 2000000000` hang it or take all memory. The child has no credentials in its environment. It
forks for the work, so that another is there at once when a template brings one down.
"""

from __future__ import annotations

import atexit
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

from tunesmith.data import fast_json

_Written = TypeVar("_Written")

SECONDS = 0.5
"""Processor time for one conversation, or for several at once. Real templates take a thousandth of it for one."""
_AT_ONCE = 16
"""Conversations that are rendered at once, where all of them can be."""
MEGABYTES = 512
"""Memory for one conversation, or for several at once, beyond what the child has when it starts."""
_PATIENCE = 120.0
"""Seconds by the clock: on a machine that is busy with something else."""


class OverLimitError(Exception):
    """The template took more than it may have; the message says of what."""


class RefusedError(Exception):
    """The template, or what runs it, says no; the message says why."""


class Guard:
    """The child process. One is enough for a program, see `render_guarded`."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def render_batch(
        self,
        template: str,
        special_tokens: Mapping[str, Any],
        conversations: Sequence[tuple[Sequence[Mapping[str, Any]], Any]],
        *,
        generation: bool = False,
        date: str = "",
    ) -> list[str | RefusedError]:
        """The text that `tokenizer.apply_chat_template(tokenize=False)` gives for each (messages, tools), or why it is
        refused: the template raised, is no template, or asked for what the sandbox forbids.

        Raises:
            OverLimitError: one of them, or some at once, took more than `SECONDS` or `MEGABYTES`; render them one by
                one to see which, if any.
        """
        asked = {"template": template, "special": dict(special_tokens), "generation": generation, "date": date,
                 "conversations": [[list(messages), tools] for messages, tools in conversations]}  # fmt: skip
        with self._lock:
            if self._child is not None and self._child.poll() is not None:
                self.close()
            child = self._child or self._start()
            assert child.stdin is not None and child.stdout is not None
            try:
                _write(child.stdin, asked)
                answer = self._read(child)
            except (OSError, EOFError):
                self.close()
                raise OverLimitError("more than it may have (the process that ran it is gone)") from None
        if answer.get("kind") == "Died":
            raise OverLimitError(_cause(int(answer["message"])))
        found: list[str | RefusedError] = []
        for one in answer["answers"]:
            if one.get("kind") == "MemoryError":
                raise OverLimitError(f"more than {MEGABYTES} MB of memory")
            found.append(str(one["text"]) if "text" in one else RefusedError(str(one["message"]) or str(one["kind"])))
        return found

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        kept = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
        environ = {name: os.environ[name] for name in kept if name in os.environ}
        environ |= {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "HF_HUB_OFFLINE": "1", "USE_TORCH": "0"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environ, cwd="/", start_new_session=True,  # Ctrl-C is ours to hear
        )  # fmt: skip
        return self._child

    def _read(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert child.stdout is not None
        ready, _, _ = select.select([child.stdout], [], [], _PATIENCE)
        if not ready:
            raise EOFError
        return _read(child.stdout)


def _cause(signal_number: int) -> str:
    if signal_number == signal.SIGPROF:
        return f"more than {SECONDS:g} s of processor time"
    return f"more than {MEGABYTES} MB of memory (it was ended by signal {signal_number})"


_guard = Guard()
atexit.register(_guard.close)
render_guarded = _guard.render_batch


def render_here(
    template: str,
    special_tokens: Mapping[str, Any],
    conversations: Sequence[tuple[Sequence[Mapping[str, Any]], Any]],
    *,
    generation: bool = False,
    date: str = "",
) -> list[str | RefusedError]:
    """The same in this process and without a limit: for a template that is trusted."""
    if len(conversations) > 1 and not any(tools for _, tools in conversations):
        asked = [messages for messages, _ in conversations]
        texts = or_refusal(_rendered, template, special_tokens, asked, None, generation, date)
        if not isinstance(texts, RefusedError):
            return list(texts)
    return [
        or_refusal(_one_rendered, template, special_tokens, messages, tools, generation, date)
        for messages, tools in conversations
    ]


def or_refusal(write: Callable[..., _Written], *asked: Any) -> _Written | RefusedError:
    """What a template writes, or says where it refuses."""
    import jinja2

    try:
        return write(*asked)
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
        return RefusedError(str(error))


def _one_rendered(
    template: str, special_tokens: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], tools: Any,
    generation: bool, date: str,
) -> str:  # fmt: skip
    return _rendered(template, special_tokens, [messages], tools, generation, date)[0]


def _rendered(
    template: str, special_tokens: Mapping[str, Any], conversations: Sequence[Sequence[Mapping[str, Any]]], tools: Any,
    generation: bool, date: str,
) -> list[str]:  # fmt: skip
    # What `apply_chat_template` calls once it has made plain dicts without None of the messages, which ours are.
    from transformers.utils.chat_template_utils import render_jinja_template

    asked: Any = {**special_tokens, "date_string": date}
    texts, _ = render_jinja_template(
        [list(messages) for messages in conversations], tools=tools, chat_template=template,
        add_generation_prompt=generation, **asked,
    )  # fmt: skip
    return [str(text) for text in texts]


def _write(pipe: BinaryIO | Any, value: Any) -> None:
    body = fast_json.dumps(value, default=str, halves=True)
    pipe.write(struct.pack(">Q", len(body)) + body)
    pipe.flush()


def _read(pipe: BinaryIO | Any) -> dict[str, Any]:
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    size = struct.unpack(">Q", head)[0]
    if size > 1 << 30:
        raise EOFError
    body = pipe.read(size)
    if len(body) < size:
        raise EOFError
    return dict(fast_json.loads(body))


# --- the child --------------------------------------------------------------------------------------------------------


def _serve() -> None:
    from transformers.utils import chat_template_utils  # noqa: F401  once, before there are workers

    while True:
        worker = os.fork()
        if worker == 0:
            _work()
            os._exit(0)
        _, status = os.waitpid(worker, 0)
        if not os.WIFSIGNALED(status):
            return
        _write(sys.stdout.buffer, {"kind": "Died", "message": os.WTERMSIG(status)})


def _work() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (MEGABYTES << 20),) * 2)
    while True:
        try:
            asked = _read(sys.stdin.buffer)
        except EOFError:
            return
        conversations = asked["conversations"]
        several = [conversations[first : first + _AT_ONCE] for first in range(0, len(conversations), _AT_ONCE)]
        _write(sys.stdout.buffer, {"answers": [answer for some in several for answer in _answers(some, asked)]})


def _answers(conversations: list[Any], asked: Mapping[str, Any]) -> list[dict[str, str]]:
    """The text of each, or what was raised; several at once, where nothing is."""
    alone = len(conversations) == 1
    if alone or not any(tools for _, tools in conversations):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # nobody handles its signal, so that it ends us whatever runs
        try:
            turns = [messages for messages, _ in conversations]
            texts = _rendered(
                asked["template"], asked["special"], turns, conversations[0][1], asked["generation"], asked["date"]
            )
            return [{"text": text} for text in texts]
        except BaseException as error:  # whatever it is, it is an answer
            if alone:
                return [{"kind": type(error).__name__, "message": str(error)[:2000]}]
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return [answer for one in conversations for answer in _answers([one], asked)]


if __name__ == "__main__":
    _serve()
