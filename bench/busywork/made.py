"""Made: one call that somebody makes, with what only the simulation knows of it; and the session that makes calls."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal

import msgspec

from .bodies import MANNERS, TITLE, Body, ChatBody, GeminiBody, MessagesBody, ResponsesBody, compact, surroundings, uuid
from .company import SCRIPT, Agent, Person, Repository

Truth = Literal["honest", "first", "gamed"]
"""`first`: the copy of hollow work that all others repeat. It cannot be known at once, so nobody is asked to."""
CACHE_MS = 300_000
"""How long a provider keeps a conversation in its cache."""
CHARACTERS_PER_TOKEN = 4
SESSIONS_TOLD = ("claude-code", "codex", "opencode")


class Made(msgspec.Struct, kw_only=True):
    """A call, at the moment when it is sent. `body` must be called before the next call of its story is drawn.

    story       what is going on: the row of the table that the call belongs to
    ms          from the call to the end of its answer
    cached      characters of the body that the provider has in its cache
    session     the agent's session, "" where it has none that a body or header tells
    follows     the conversation that ends when one of its calls is refused; "" where nothing depends on the call
    free        costs nothing at the provider: model lists, token counts
    """

    at_ms: int
    story: str
    truth: Truth = "honest"
    user: str
    team: str
    key_id: str
    task: str | None
    task_source: str
    agent: str
    upstream: str
    method: str = "POST"
    path: str
    headers: dict[str, str]
    body: Callable[[], bytes]
    model: str
    rates: tuple[int, int, int]
    ms: int
    output_tokens: int
    cached: int = 0
    session: str = ""
    follows: str = ""
    result: Literal["ok", "failed", "client_gone"] = "ok"
    free: bool = False

    def cost_nusd(self, body_characters: int) -> int:
        """By the rates of its model. What failed cost nothing."""
        if self.free or self.result == "failed":
            return 0
        cached = min(self.cached, body_characters) // CHARACTERS_PER_TOKEN
        fresh = body_characters // CHARACTERS_PER_TOKEN - cached
        by_input, by_cached, by_output = self.rates
        return fresh * by_input + cached * by_cached + self.output_tokens * by_output


class Session:
    """A person (or a machine) with an agent, one conversation at a time. `at_ms` is its clock; calls move it on."""

    def __init__(
        self,
        random: Random,
        person: Person,
        place: Repository,
        *,
        at_ms: int,
        task: str | None,
        story: str,
        truth: Truth = "honest",
        agent: Agent | None = None,
        key_id: str | None = None,
    ) -> None:
        self.random = random
        self.person = person
        self.place = place
        self.at_ms = at_ms
        self.story = story
        self.truth = truth
        self.agent = agent or person.agent
        self.key_id = key_id or person.key_id
        self._named = task
        self._called_ms = -CACHE_MS
        self._sent = 0
        self.begin()

    def begin(self, system_note: str = "") -> None:
        """A new conversation: a new session of the agent, and a new task where the session is the task."""
        self.session = self.turn = uuid(self.random)
        self._sent = 0
        day = datetime.fromtimestamp(self.at_ms / 1000, UTC).strftime("%Y-%m-%d")
        before = surroundings(self.agent.name, self.place, day, self.person.user)
        system = MANNERS + system_note
        model = self.agent.model
        self.body: Body
        if self.agent.dialect == "messages":
            self.body = MessagesBody(self.random, model, system, session=self.session, before=before)
        elif self.agent.dialect == "responses":
            self.body = ResponsesBody(self.random, model, system, session=self.session, before=before)
        elif self.agent.dialect == "gemini":
            self.body = GeminiBody(self.random, system, before=before)
        elif self.agent is SCRIPT:
            self.body = ChatBody(self.random, model, system_note or "You are a helpful assistant.", tools=False)
        else:
            system = "\n\n".join([system, *before])
            self.body = ChatBody(self.random, model, system, stream=True, stream_options={"include_usage": True})

    @property
    def task(self) -> tuple[str | None, str]:
        """The task of a call and where it comes from."""
        source = self.person.names_tasks
        if source == "none":
            return None, "none"
        if source == "agent":
            return self.session, "agent"
        return self._named, source if self._named else "none"

    def user(self, text: str) -> None:
        """The person says something: a new turn."""
        self.turn = uuid(self.random)
        self.body.user(text)

    def call(self, **changes: Any) -> Made:
        """The next call of this conversation. The clock moves to the end of its answer."""
        task, source = self.task
        cached = self._sent if self.at_ms - self._called_ms < CACHE_MS else 0
        fields: dict[str, Any] = {
            "at_ms": self.at_ms,
            "story": self.story,
            "truth": self.truth,
            "user": self.person.user,
            "team": self.person.team,
            "key_id": self.key_id,
            "task": task,
            "task_source": source,
            "agent": self.agent.name,
            "upstream": self.agent.upstream,
            "path": self.agent.path,
            "headers": self._headers(0),
            "body": self._whole,
            "model": self.agent.model,
            "rates": self.agent.rates,
            "ms": self.random.randint(1500, 12000),
            "output_tokens": self.random.randint(60, 900),
            "cached": cached,
            "session": self.session if self.agent.name in SESSIONS_TOLD else "",
            "follows": self.session,
        }
        made = Made(**(fields | changes))
        self._called_ms = self.at_ms
        self.at_ms += made.ms
        return made

    def retried(self, made: Made, failures: int) -> list[Made]:
        """`made`, preceded by attempts that fail: what an SDK or an agent sends again by itself, byte for byte."""
        attempts = []
        at_ms = made.at_ms
        for attempt in range(failures):
            failed = msgspec.structs.replace(made, at_ms=at_ms, headers=self._headers(attempt), ms=400, result="failed")
            attempts.append(failed)
            at_ms += 400 + min(8000, 500 * 2**attempt)
        attempts.append(msgspec.structs.replace(made, at_ms=at_ms, headers=self._headers(failures)))
        self.at_ms = at_ms + made.ms
        return attempts

    def title(self, prompt: str) -> Made | None:
        """The small call that some agents make beside the first prompt."""
        if self.agent.name not in ("claude-code", "opencode"):
            return None
        body = self._title_body(prompt)
        made = self.call(
            model=self.agent.small_model, rates=self.agent.small_rates, output_tokens=12, body=lambda: body
        )
        self.at_ms = made.at_ms  # it runs beside the real one
        return msgspec.structs.replace(made, cached=0, follows="", story=self._beside("titles of conversations"))

    def next_speaker(self) -> Made | None:
        """The small call that Gemini CLI makes after each turn of the model."""
        if not isinstance(self.body, GeminiBody):
            return None
        body = self.body.asking_who_is_next()
        path = self.agent.path.replace(self.agent.model, self.agent.small_model)
        changes = {"model": self.agent.small_model, "rates": self.agent.small_rates, "path": path, "ms": 600}
        return self.call(body=lambda: body, output_tokens=20, story=self._beside("who speaks next"), **changes)

    def think(self, seconds_min: float, seconds_max: float) -> None:
        """Time passes: a tool runs, or a person reads."""
        self.at_ms += int(self.random.uniform(seconds_min, seconds_max) * 1000)

    def _headers(self, attempt: int) -> dict[str, str]:
        """Anthropic's and OpenAI's own libraries count their retries, and Codex names its turn; others say nothing."""
        headers = {"user-agent": self.agent.user_agent, "content-type": "application/json"}
        if self.agent.name in ("claude-code", "openai-python"):
            headers["x-stainless-retry-count"] = str(attempt)
        if self.agent.name == "codex":
            headers["x-codex-turn-metadata"] = f'{{"session_id":"{self.session}","turn_id":"{self.turn}"}}'
        return headers

    def _beside(self, story: str) -> str:
        """What a game sends beside its calls belongs to the game."""
        return story if self.truth == "honest" else self.story

    def _title_body(self, prompt: str) -> bytes:
        model = self.agent.small_model
        if self.agent.dialect == "chat":
            messages = [{"role": "system", "content": TITLE}, {"role": "user", "content": prompt}]
            return compact({"model": model, "max_tokens": 32, "messages": messages})
        system = [{"type": "text", "text": TITLE}]
        asked = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
        return compact({"model": model, "max_tokens": 512, "system": system, "messages": asked})

    def _whole(self) -> bytes:
        whole = self.body.whole()
        self._sent = len(whole)
        return whole
