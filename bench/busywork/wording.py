"""Wording: what people write to agents. An idea is one thing to say, in several wordings that mean the same.

Two sets with nothing in common. Rules and sketches are tuned on EVERYDAY alone; HELD_OUT shows what that is worth.
"""

from __future__ import annotations

from random import Random

import msgspec

Idea = tuple[str, ...]


class Phrasing(msgspec.Struct, frozen=True):
    """`goals` say what is wanted, `settings` why, `wishes` how. `{file}`, `{symbol}` and the like are filled in.

    `greetings` and `thanks` are what a rewording begins and ends with. `command` is a saved prompt of a page that
    people call with a ticket number; `errand` is a one-liner that names nothing but a ticket.
    """

    goals: tuple[Idea, ...]
    settings: tuple[Idea, ...]
    wishes: tuple[Idea, ...]
    greetings: Idea
    thanks: Idea
    replies: Idea
    command: str
    errand: Idea


EVERYDAY = Phrasing(
    goals=(
        (
            "Fix the rounding fault in {file}: `{symbol}` loses a cent on negative amounts.",
            "There is a rounding bug in {file}. `{symbol}` drops one cent when the amount is negative; correct it.",
            "{file} rounds wrongly: negative amounts come out of `{symbol}` a cent short. Please repair this.",
            "Make `{symbol}` in {file} round negative amounts right, at the moment a cent goes missing.",
            "When an amount is below zero, `{symbol}` ({file}) is off by a cent. Find out why and mend it.",
        ),
        (
            "Write unit tests for `{symbol}` in {file}, with edge cases for empty and very long input.",
            "`{symbol}` in {file} has no tests. Add unit tests, and cover empty input and input that is very long.",
            "Add test coverage for {file}, function `{symbol}`: empty input, overlong input, the usual cases.",
            "Please cover `{symbol}` ({file}) with unit tests; think of empty strings and of very long ones.",
            "I need tests around `{symbol}` from {file}. Include the edge cases: nothing at all, and far too much.",
        ),
        (
            "Move {service} from the old HTTP client to the shared one; {file} is where the requests are made.",
            "{service} still uses the old HTTP client in {file}. Replace it with the shared client.",
            "Migrate the requests in {file} of {service} to our shared HTTP client and drop the old one.",
            "Swap the HTTP client of {service}: {file} should call the shared one, and nothing else may use the old.",
            "Port {file} ({service}) to the common HTTP client, then remove the previous client from it.",
        ),
        (
            "Find out why {service} answers slowly since Tuesday; start with {file} and the query in `{symbol}`.",
            "{service} has been slow since Tuesday. Look at {file} first, and at the query that `{symbol}` makes.",
            "Latency of {service} went up on Tuesday. Investigate, beginning with `{symbol}` in {file} and its query.",
            "Why is {service} this slow? It began on Tuesday; my guess is the query of `{symbol}` in {file}.",
            "Track down the slowness in {service} that people report since Tuesday: {file}, `{symbol}`, its query.",
        ),
        (
            "Split {file} into two modules: what reads input and what decides. `{symbol}` belongs to the second.",
            "{file} does too much. Separate reading of input from deciding, and keep `{symbol}` with the decisions.",
            "Refactor {file}: one module that reads, one that decides; `{symbol}` goes into the deciding one.",
            "Break up {file} so that input handling and decisions live apart. Put `{symbol}` with the latter.",
            "Please take {file} apart into an input module and a decision module, where `{symbol}` should end up.",
        ),
        (
            "Add a feature flag for {thing} in {service}, off by default, read once at the start in {file}.",
            "{thing} needs a feature flag in {service}. Default off; read it at start-up, in {file}.",
            "Put {thing} of {service} behind a flag that is off unless set; {file} reads it when it starts.",
            "Introduce a flag in {file} that switches {thing} on in {service}. It stays off by default.",
            "Guard {thing} with a feature flag ({service}, {file}): disabled by default, looked up once at boot.",
        ),
        (
            "Document how {thing} works in {service} for new colleagues, with an example taken from {file}.",
            "Write a page for new colleagues on {thing} in {service}; take an example out of {file}.",
            "New people do not understand {thing} of {service}. Explain it on a page, with {file} as example.",
            "Please describe {thing} ({service}) for newcomers, and illustrate it with code from {file}.",
            "We lack documentation on {thing}. Draft it for {service}, and quote {file} for an example.",
        ),
        (
            "Make `{symbol}` in {file} safe to call from several threads and show that it is.",
            "`{symbol}` ({file}) is not thread-safe. Change that, and prove it with a test.",
            "Several threads call `{symbol}` of {file} by now; protect it, and demonstrate that it holds.",
            "Please make {file} thread-safe where `{symbol}` is concerned, with evidence that it works.",
            "Calls of `{symbol}` from parallel threads break {file}. Make them safe and show it in a test.",
        ),
    ),
    settings=(
        (
            "Customers of {service} wrote to us about it twice this week.",
            "We had two complaints from customers of {service} this week.",
            "Two customers that use {service} have complained in the last days.",
            "Support got two tickets on {service} about this.",
        ),
        (
            "The nightly run has been red because of it since {day}.",
            "Since {day} the nightly run fails over this.",
            "This is what has kept the nightly run red from {day} on.",
            "It makes the nightly run fail; that started on {day}.",
        ),
        (
            "It blocks the release of {thing}, which is planned for {day}.",
            "We want to release {thing} on {day}, and this is in the way.",
            "The release of {thing} on {day} depends on it.",
            "Until this is done we cannot ship {thing}; {day} is the date.",
        ),
        (
            "`{symbol}` was written by someone who has left, so nobody knows it well.",
            "Nobody here knows `{symbol}` well, its author has left.",
            "The author of `{symbol}` is gone, expect surprises.",
            "Be careful around `{symbol}`: whoever wrote it does not work here any more.",
        ),
    ),
    wishes=(
        (
            "Keep the public interface as it is.",
            "Do not change the public interface.",
            "The interface that others use must stay the same.",
            "Callers from outside should not have to change anything.",
        ),
        (
            "Run the whole test suite before you finish.",
            "Before you are done, run all tests.",
            "All tests have to pass at the end; run them.",
            "Finish with a full run of the tests.",
        ),
        (
            "Add no dependency.",
            "No new dependencies, please.",
            "Do it without pulling in another library.",
            "Use what is there already; no further packages.",
        ),
        (
            "Explain at the end what you changed, in three sentences.",
            "Close with three sentences on what has changed.",
            "When done, sum up your changes in about three sentences.",
            "At the end I want a summary of three sentences.",
        ),
        (
            "Commit in small steps with messages that say why.",
            "Small commits, please, and messages that give the reason.",
            "Make several small commits; each message should explain why.",
            "Split the work into small commits and say in each why it was needed.",
        ),
        (
            "Ask me if anything is unclear instead of guessing.",
            "If in doubt, ask me, do not guess.",
            "Rather than guess, come back to me with questions.",
            "Do not assume; ask where something is not clear.",
        ),
    ),
    greetings=("", "", "", "Hi! ", "Hello, ", "Hey, quick one: ", "Good morning. ", "Please: ", "New task. "),
    thanks=("", "", "", " Thanks!", " Thank you.", " Cheers", " Much appreciated.", " That is all."),
    replies=("continue", "yes", "go on", "ok, do it", "looks good, commit it", "yes please", "try again", "next"),
    command=(
        "You work on one ticket until it is done. Read the ticket with the tool `ticket`. Restate in two "
        "sentences what is asked. Look for the place in the code where the change belongs; read at least the "
        "tests beside it. If the ticket is unclear, stop and list your questions. Otherwise make the smallest "
        "change that does what is asked, in the style of the files around it. Add a test that fails without "
        "your change. Run the tests of the package. Update the changelog if users will notice. Do not touch "
        "files that have nothing to do with the ticket, do not reformat, do not upgrade anything. At the end "
        "print the list of files you changed, and a title for the pull request of at most sixty characters."
        "\n\nTicket: {ticket}"
    ),
    errand=("Fix {ticket}", "work on {ticket}", "Please do {ticket}.", "{ticket}", "Review {ticket} and fix it"),
)

HELD_OUT = Phrasing(
    goals=(
        (
            "Pagination in {file} skips the last row: `{symbol}` computes the offset from the wrong page size.",
            "The final row is missing when we page through {file}; the offset in `{symbol}` uses a wrong page size.",
            "`{symbol}` miscalculates offsets ({file}), hence the last record of each listing never shows up.",
            "Listings lose their last entry. I suspect the page size that `{symbol}` takes for offsets in {file}.",
            "Could you sort out paging in {file}? Offsets made by `{symbol}` leave out one record at the end.",
        ),
        (
            "Translate the error texts in {file} to German and French; `{symbol}` chooses the language.",
            "{file} speaks English only. Its error texts are needed in French and German, picked by `{symbol}`.",
            "We need the messages of {file} localised (de, fr). The language comes from `{symbol}`.",
            "Localise what {file} says when it fails: German and French, with `{symbol}` deciding which.",
            "Bring German and French to the failures reported by {file}, using `{symbol}` for the choice.",
        ),
        (
            "Upgrade {service} to the new logging format; the formatter is `{symbol}` in {file}.",
            "The log lines of {service} are still in the old format. `{symbol}` in {file} formats them; convert it.",
            "Convert logging of {service} to what the platform expects now. You will find `{symbol}` in {file}.",
            "{file} holds `{symbol}`, which writes logs of {service} the old way. Teach it the current format.",
            "Bring `{symbol}` ({file}) up to the present log format, so that {service} can be searched again.",
        ),
        (
            "Write a migration that renames the column behind `{symbol}` for {service}, and adapt {file}.",
            "The column that `{symbol}` reads should get another name. Do the migration for {service}; adapt {file}.",
            "Rename a database column in {service}: it is the one `{symbol}` uses. {file} has to follow.",
            "I want a schema migration for {service} which renames what `{symbol}` reads, plus the edit to {file}.",
            "Plan and write the rename of the column under `{symbol}` ({service}), including all uses in {file}.",
        ),
        (
            "Sketch an alternative to {thing} in {service} and compare both on cost and risk; see {file}.",
            "Compare {thing}, as {service} has it, to one alternative of your choice: risk, cost. Start at {file}.",
            "What else than {thing} could {service} use? Weigh price and danger of one other way. Code: {file}.",
            "Propose something in place of {thing} ({service}, {file}) and tell me what it costs and risks.",
            "Give me a second option besides {thing} for {service}, judged by expense and by hazard; read {file}.",
        ),
        (
            "Clean up dead code around `{symbol}` in {file} and prove that nothing refers to it.",
            "A lot near `{symbol}` in {file} is unused. Remove it after you have verified that it is.",
            "Delete what is no longer referenced close to `{symbol}` ({file}); show me the evidence.",
            "{file} has grown leftovers around `{symbol}`. Drop them, with proof that no reference remains.",
            "Weed out unreachable code beside `{symbol}` of {file}, having checked for references first.",
        ),
    ),
    settings=(
        (
            "An audit of {service} asked for this.",
            "Auditors of {service} put it on their list.",
            "It came up when {service} was audited.",
            "We owe it to the audit of {service}.",
        ),
        (
            "Our partner waits for it until {day}.",
            "By {day} the partner needs it.",
            "A partner has been promised this for {day}.",
            "{day} is when our partner expects to see it.",
        ),
        (
            "Last quarter we tried and gave up halfway.",
            "There was an attempt in the last quarter that stopped in the middle.",
            "Someone began this three months ago and left it unfinished.",
            "It was half done once, a quarter ago.",
        ),
    ),
    wishes=(
        (
            "Stay below two hundred changed lines.",
            "The diff should have fewer than two hundred lines.",
            "At most two hundred lines may change.",
            "Two hundred lines of changes are the ceiling.",
        ),
        (
            "Benchmark before and after.",
            "Measure it on both sides of the change.",
            "I would like numbers from before and from after.",
            "Compare the timing with what it was.",
        ),
        (
            "Leave generated files alone.",
            "Generated files are off limits.",
            "Whatever is generated stays untouched.",
            "Hands off the generated sources.",
        ),
        (
            "Use British spelling in comments.",
            "Comments follow British spelling.",
            "Spell comments the British way.",
            "In comments, British English please.",
        ),
        (
            "Open a draft pull request at the end.",
            "End by opening a pull request as a draft.",
            "The result is a draft pull request.",
            "Put it up as a draft for review.",
        ),
    ),
    greetings=("", "", "", "Morning! ", "Next item: ", "Hello again. ", "Dear agent, ", "Right, ", "OK so: "),
    thanks=("", "", "", " Ta.", " Many thanks!", " Good luck.", " Appreciate it.", " Over to you."),
    replies=("carry on", "sure", "yep", "proceed", "fine, push it", "please do", "once more", "what now?"),
    command=(
        "Handle the issue named below. Fetch it first. Judge whether it can be reproduced; if it can, "
        "reproduce it in a test. Then find the cause, not the symptom. Prefer deleting code to adding code. "
        "Touch as few files as you can. Check formatting and types. Never edit the lock file. If the cause "
        "lies in another service, write down what its team has to know and stop. Finish with a short report: "
        "cause, change, proof, remaining doubt. Keep the report below one hundred and fifty words and write "
        "it for somebody who was not there.\n\nIssue: {ticket}"
    ),
    errand=("Handle {ticket}", "take {ticket}", "{ticket} please", "Look into {ticket}", "Solve {ticket}, then stop"),
)


class Request(msgspec.Struct, frozen=True):
    """A piece of work that somebody wants: which ideas, with what filled in. `reworded` says it in other words."""

    ideas: tuple[Idea, ...]
    slots: dict[str, str]

    def said(self) -> str:
        """In the first wording of each idea: how its author writes it."""
        return " ".join(idea[0] for idea in self.ideas).format_map(self.slots)

    def reworded(self, random: Random, phrasing: Phrasing) -> str:
        """The same in other words: another wording of each idea, in another order, more or less polite."""
        ideas = list(self.ideas)
        random.shuffle(ideas)
        text = " ".join(random.choice(idea) for idea in ideas).format_map(self.slots)
        return random.choice(phrasing.greetings) + text + random.choice(phrasing.thanks)


def wanted(random: Random, phrasing: Phrasing, slots: dict[str, str]) -> Request:
    """Some piece of work: a goal, perhaps why, and how."""
    ideas = [random.choice(phrasing.goals)]
    ideas += random.sample(phrasing.settings, random.randint(0, 2))
    ideas += random.sample(phrasing.wishes, random.randint(0, 3))
    return Request(tuple(_own_words(random, idea) for idea in ideas), slots)


def _own_words(random: Random, idea: Idea) -> Idea:
    """The idea with its wordings in the order in which this author comes upon them."""
    return tuple(random.sample(idea, len(idea)))
