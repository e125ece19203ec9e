"""The keys of `outcomes`, `teams` and `unproven` in policy files: `policy_schema.py` puts them beside the others."""

from __future__ import annotations

from .budget_values import Timezone, Window, YesNo
from .outcome_values import Duration, Pattern, SigningSecret
from .policy_shapes import Key, Keys, ListOf
from .policy_values import Choice, GlobList, Money, Text, Whole

WEIGHT_MAX = 1_000
PEOPLE_MAX = 100_000

_MATCH = {
    "repo": Key(GlobList(), "the repository, as `owner/name`, or the project's path"),
    "base": Key(GlobList(), "the branch that the change went into, or that was pushed to"),
    "environment": Key(GlobList(), "the environment of a deployment"),
    "author": Key(GlobList(), "the login of who wrote the change; compared, never kept"),
    "merged_by": Key(GlobList(), "the login of who let it in; compared, never kept"),
}

OUTCOME_MATCH = Keys(
    {
        **_MATCH,
        "reviewed": Key(YesNo(), "`true`: someone other than its author let the change in"),
        "not": Key(Keys(_MATCH), "the same keys; the rule applies where they do not all match"),
    }
)


def outcome_keys(name: Text) -> Keys:
    """One rule of `outcomes`."""
    return Keys(
        {
            "name": Key(name, "unique in the whole policy; the webhook goes to `/webhooks/NAME`", required=True),
            "from": Key(
                Choice("github", "gitlab", "standard", "declared"),
                "who tells: GitHub, GitLab, anything that signs as Standard Webhooks say, or people with "
                "`callmeter outcome add`, whose word counts only by such a rule",
                required=True,
            ),
            "secret": Key(
                SigningSecret(),
                "what the source signs with; two with a comma between them while one takes the place of the other. "
                "Not for `declared`",
                otherwise="required",
            ),
            "event": Key(
                Text(told="event", what="an event"),
                "what must have happened: `pull_request.merged`, `deployment_status.success` or `push` of GitHub, "
                "`merge_request.merged`, `deployment.success` or `push` of GitLab, the `type` of a Standard Webhook",
                otherwise="merged",
            ),
            "match": Key(OUTCOME_MATCH, "which of them; all keys must match", "{}"),
            "task": Key(
                Pattern(),
                "finds the task in trailers, branch, title, labels and body, in this order; its first group, else all "
                "of it. RE2 syntax",
            ),
            "accepted_after": Key(Duration(), "how long it must hold before it counts", "14d"),
            "weight": Key(Whole(WEIGHT_MAX), "how much one counts", "1"),
            "per": Key(
                Choice("change", "task"),
                "`change`: each change counts once, however many pull requests share its task and merge base; "
                "`task`: all changes of a task count once together",
                "change",
            ),
            "undone_by": Key(
                ListOf(Text(told="event", what="an event"), unique=True),
                "types of events by which a Standard Webhooks source takes back what it told",
                "[]",
            ),
            "org": Key(Text(told="org", what="an org"), "the org whose tasks these are", "default"),
        }
    )


TEAM = Keys(
    {
        "unit": Key(
            Text(told="unit"),
            "what the team delivers: the name of a rule of `outcomes`, or `deployment`, `merged change`, "
            "`commit on main`",
            required=True,
        ),
        "size": Key(Whole(PEOPLE_MAX), "how many people it is, for normalizing; never shown per person", required=True),
    }
)


def unproven_keys(name: Text, match: Keys, mode: Choice, help_: Key) -> Keys:
    """One rule of `unproven`."""
    return Keys(
        {
            "name": Key(name, "unique in the whole policy; a part of its counters' identity", required=True),
            "match": Key(match, "which calls, by the keys of `access[].match`; all must match", "{}"),
            "per": Key(Choice("task"), "tasks are what has outcomes; calls without one count by user", "task"),
            "limit": Key(Money(), "what a task may cost in a window in which it has no outcome", required=True),
            "every": Key(Window(), "how often it starts anew; `ever` never does", required=True),
            "timezone": Key(Timezone(), "whose clock and calendar count; weeks begin on Monday", "UTC"),
            "then": Key(
                Choice("refuse", "warn"),
                "what happens to calls beyond it; `warn` lets them pass with a header",
                "refuse",
            ),
            "mode": Key(mode, "`shadow`: recorded as one that would have refused", otherwise="`defaults.mode`"),
            "help": help_,
        }
    )
