"""From tokens and generations to answers: whole ones, or chunks of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from adjoin.runtime.gateway.bodies import encode
from adjoin.runtime.gateway.openai import answers as a
from adjoin.runtime.gateway.openai.calls import Said, Shown, read_calls
from adjoin.runtime.gateway.openai.form import Form
from adjoin.types import Generation, Token, Usage

DONE = b"data: [DONE]\n\n"
_OBJECTS = {
    ("chat", False): ("chatcmpl-", "chat.completion"),
    ("chat", True): ("chatcmpl-", "chat.completion.chunk"),
    ("text", False): ("cmpl-", "text_completion"),
    ("text", True): ("cmpl-", "text_completion"),
}


class Transcript:
    """One answer as it grows. Ids and times are the run's.

    :meth:`chunks` and then :meth:`ending` write a stream, :meth:`whole` an answer at once.
    """

    def __init__(self, form: Form, run: str, created: float) -> None:
        prefix, self._object = _OBJECTS[form.kind, form.stream]
        self._form = form
        self._run = run
        self._id = f"{prefix}{run}"
        self._created = int(created)
        self._choices = [_Choice(form, run, at) for at in range(form.choices)]

    def chunks(self, tokens: Iterable[Token]) -> bytes:
        """What these tokens add, as server-sent events; each token in a chunk of its own."""
        parts = []
        for token in tokens:
            if token.choice < len(self._choices):
                choice = self._choices[token.choice].token(token)
                if choice is not None:
                    parts.append(self._chunk([choice]))
        return b"".join(parts)

    def ending(self, found: Sequence[Generation], usage: Usage, extension: Any = None) -> bytes:
        """What is left to say, the reasons of the ends, and the usage where it was asked for."""
        parts = []
        for choice, generation in zip(self._choices, found, strict=True):
            parts += [self._chunk([each]) for each in choice.rest(generation)]
            last = choice is self._choices[-1]
            told = extension if last and extension is not None else UNSET
            parts.append(self._chunk([choice.end(generation)], told))
        if self._form.include_usage:
            parts.append(_event(self._answer([], a.usage_of(usage))))
        return b"".join((*parts, DONE))

    def whole(
        self,
        found: Sequence[Generation],
        usage: Usage,
        tokens: Iterable[Token] = (),
        extension: Any = None,
    ) -> bytes:
        """The answer as one body."""
        for token in tokens:
            if token.choice < len(self._choices):
                self._choices[token.choice].keep(token)
        told = UNSET if extension is None else extension
        pairs = zip(self._choices, found, strict=True)
        choices: Any = [choice.whole(generation, told) for choice, generation in pairs]
        outer = told if self._form.kind == "text" else UNSET
        return encode(self._answer(choices, a.usage_of(usage), outer))

    def differs(self, found: Sequence[Generation]) -> bool:
        """Whether what was shown is no beginning of the answer."""
        pairs = zip(self._choices, found, strict=True)
        return any(not generation.text.startswith(choice.said) for choice, generation in pairs)

    def _chunk(self, choices: Any, extension: Any = UNSET) -> bytes:
        usage = None if self._form.include_usage else UNSET
        return _event(self._answer(choices, usage, extension))

    def _answer(self, choices: Any, usage: Any, extension: Any = UNSET) -> a.Answer:
        return a.Answer(
            id=self._id,
            object=self._object,
            created=self._created,
            model=self._form.model,
            choices=choices,
            usage=usage,
            adjoin=extension,
        )


class _Choice:
    """One sample of an answer."""

    def __init__(self, form: Form, run: str, at: int) -> None:
        self._form = form
        self._run = run
        self._at = at
        self._shown = Shown(guarded=bool(form.tools))
        self._begun = False
        self._thought = False
        self._tokens: list[Token] = []
        self._offset = 0

    @property
    def said(self) -> str:
        """The text that was shown."""
        return self._shown.text

    def token(self, token: Token) -> Any:
        """The choice of a chunk; None when there is nothing to show yet."""
        text = "" if token.reasoning else self._shown.feed(token.text)
        thought = token.text if token.reasoning else ""
        self._thought = self._thought or bool(thought)
        logprobs = self._logprobs([token]) if self._form.logprobs else None
        if not text and not thought and logprobs is None and self._begun:
            return None
        return self._piece(text, thought, logprobs)

    def keep(self, token: Token) -> None:
        self._tokens.append(token)

    def rest(self, generation: Generation) -> list[Any]:
        """Choices of chunks: the text that was not shown, and the calls."""
        said = self._read(generation)
        text = self._shown.rest(said) if generation.text.startswith(self.said) else ""
        thought = "" if self._thought else generation.reasoning
        found = [self._piece(text, thought, None)] if text or thought or not self._begun else []
        for at, call in enumerate(self._calls(said)):
            numbered = msgspec.structs.replace(call, index=at)
            found.append(a.ChatChoice(index=self._at, delta=a.Message(tool_calls=[numbered])))
        return found

    def end(self, generation: Generation) -> Any:
        """The choice of the last chunk."""
        reason = self._reason(generation, self._read(generation))
        if self._form.kind == "text":
            return a.TextChoice(index=self._at, text="", finish_reason=reason)
        return a.ChatChoice(index=self._at, delta=a.Message(), finish_reason=reason)

    def whole(self, generation: Generation, extension: Any) -> Any:
        said = self._read(generation)
        reason = self._reason(generation, said)
        thought = generation.reasoning or UNSET
        logprobs: Any = self._logprobs(self._tokens) if self._form.logprobs else None
        if self._form.kind == "text":
            return a.TextChoice(
                index=self._at,
                text=said.text,
                reasoning_content=thought,
                logprobs=logprobs,
                finish_reason=reason,
            )
        message = a.Message(
            role="assistant",
            content=said.text or (None if said.calls else ""),
            reasoning_content=thought,
            tool_calls=self._calls(said) or UNSET,
            adjoin=extension,
        )
        return a.ChatChoice(
            index=self._at, message=message, logprobs=logprobs, finish_reason=reason
        )

    def _piece(self, text: str, thought: str, logprobs: Any) -> Any:
        first, self._begun = not self._begun, True
        if self._form.kind == "text":
            told = thought or UNSET
            return a.TextChoice(
                index=self._at, text=text, reasoning_content=told, logprobs=logprobs
            )
        delta = a.Message(
            role="assistant" if first else UNSET,
            content=text if text or (first and not thought) else UNSET,
            reasoning_content=thought or UNSET,
        )
        return a.ChatChoice(index=self._at, delta=delta, logprobs=logprobs)

    def _read(self, generation: Generation) -> Said:
        return read_calls(generation, self._form.tools, one=self._form.one_call)

    def _calls(self, said: Said) -> list[a.ToolCall]:
        return [
            a.ToolCall(id=self._call_id(at), function=a.CalledFunction(*call))
            for at, call in enumerate(said.calls)
        ]

    def _call_id(self, at: int) -> str:
        return f"call_{self._run}_{self._at}_{at}"

    def _reason(self, generation: Generation, said: Said) -> str:
        if said.calls:
            return "tool_calls"
        return "length" if generation.finish_reason == "length" else "stop"

    def _logprobs(self, tokens: Sequence[Token]) -> Any:
        """Of the answer's tokens; thoughts, and parts of a token that has been told, have none."""
        told = [token for token in tokens if token.logprob is not None and not token.reasoning]
        if self._form.kind == "chat":
            return a.ChatLogprobs(content=[a.TokenLogprob.of(token) for token in told])
        offsets = []
        for token in told:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return a.TextLogprobs(
            tokens=[token.text for token in told],
            token_logprobs=[token.logprob for token in told],
            text_offset=offsets,
            top_logprobs=[_likeliest(token) for token in told] if self._form.top_logprobs else None,
        )


def _likeliest(token: Token) -> dict[str, float]:
    """By text, as completions have it: the drawn token first, which may not be a likely one. Of
    tokens with one text the likeliest counts."""
    found = {token.text: token.logprob or 0.0}
    for each in token.top or ():
        found.setdefault(each.text, each.logprob)
    return found


def _event(value: Any) -> bytes:
    return b"data: %s\n\n" % encode(value)


def error_events(body: Mapping[str, Any]) -> bytes:
    """The end of a stream that failed after it had begun."""
    return _event(body) + DONE
