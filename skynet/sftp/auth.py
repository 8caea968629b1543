"""Logging in: which keys and passwords are offered to a server, in which order, and the refusal.

Keys come first (the one that was named, or the agent's and the default files), then passwords.
A password is tried as such and, where the server takes it, as the answer of a
keyboard-interactive login. A server that wants several steps gets them in the order it asks.
The requests themselves are made by a Login; nothing here knows the library below it.

What the server accepts is learned by asking to be let in without anything. But a key that was named
is offered without that, if it opens without asking anybody: its refusal tells the same. Then the
server is asked last, before giving up, since it may let us in. Not so if a password was given too:
a server of passwords may count the key as a try, and allow only one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from skynet.errors import AuthError, ConnectError
from skynet.sftp import credentials
from skynet.sftp.credentials import KeyFile, Prompter, Secret
from skynet.sftp.dial import one_line
from skynet.sftp.endpoint import Endpoint, Hop

PUBLICKEY, PASSWORD, INTERACTIVE = "publickey", "password", "keyboard-interactive"

# The server's prompts of one round, each with whether the answer may be shown, to the answers.
Responder = Callable[[Sequence[tuple[str, bool]]], list[str]]


class Answer(NamedTuple):
    """What the server said to one attempt.

    methods: what it accepts next, None when it did not say. partial: this step was right, but
    it wants another one.
    """

    accepted: bool
    methods: frozenset[str] | None = None
    partial: bool = False


class Offer(NamedTuple):
    """A key that can be offered: how to name it, the library's key object, its public key."""

    label: str
    key: object
    blob: bytes


class HungUpError(Exception):
    """The server ended the connection during the login; the text is its last word."""


class Login(Protocol):
    """The authentication requests of one connection. Each raises HungUpError when it ends."""

    def begin(self) -> None:
        """Ask for the login service; everything else comes after it."""

    def none(self) -> Answer:
        """Ask to be let in without anything, to learn what the server accepts."""

    def publickey(self, offer: Offer) -> Answer:
        """Offer a key and sign with it."""

    def password(self, secret: str) -> Answer:
        """Send a password."""

    def interactive(self, respond: Responder) -> Answer:
        """Let the server ask; `respond` is called for each round of questions."""

    def agent(self) -> list[Offer]:
        """The keys of the SSH agent; none when there is no agent."""

    def load(self, file: KeyFile, passphrase: str | None) -> list[Offer]:
        """The key in a file, its certificate first. AuthError, code "passphrase", if wrong."""


class Attempt(NamedTuple):
    """One login attempt: how to name it to the user, and the request."""

    label: str
    request: Callable[[], Answer]


@dataclass
class Progress:
    """What a login has come to so far."""

    allowed: frozenset[str] = frozenset()
    partial: bool = False
    tried: list[str] = field(default_factory=list)
    nobody_to_ask: bool = False

    def note(self, answer: Answer) -> None:
        """Remember what the server accepts next."""
        self.partial = answer.partial
        if answer.methods is not None:
            self.allowed = answer.methods


def log_in(
    login: Login,
    hop: Hop,
    passwords: Endpoint | None,
    environ: Mapping[str, str],
    prompter: Prompter,
) -> None:
    """Log in to a hop, or raise AuthError saying what was tried and what the server accepts.

    passwords: the endpoint whose password sources may be used; None for a jump host, which must
    never see the password of the server behind it.
    """
    by_password = passwords is not None and credentials.has_password(passwords, environ)
    named = [] if by_password else _named_key(login, hop, environ)
    progress = Progress(allowed=frozenset({PUBLICKEY} if named else ()))
    keys = named or _offers(login, hop, environ, prompter, progress)
    sources = (
        ({PUBLICKEY}, (Attempt(key.label, partial(login.publickey, key)) for key in keys)),
        (
            {PASSWORD, INTERACTIVE},
            _password_attempts(login, hop, passwords, environ, prompter, progress),
        ),
    )
    asked = accepted = False
    try:
        login.begin()
        while not accepted:
            attempt = _next(sources, progress)
            if attempt is not None:
                progress.tried.append(attempt.label)
                answer = attempt.request()
            elif not asked:
                asked, answer = True, _ask(login, progress)
            else:
                raise _refused(hop, progress)
            progress.note(answer)
            accepted = answer.accepted
    except HungUpError as error:
        raise _hung_up(hop, progress, str(error)) from error


def _ask(login: Login, progress: Progress) -> Answer:
    """Ask to be let in for nothing, or what else it takes."""
    try:
        return login.none()
    except HungUpError:
        if not progress.tried:
            raise
        return Answer(accepted=False)  # what was tried before has failed, and is what to tell


def _named_key(login: Login, hop: Hop, environ: Mapping[str, str]) -> list[Offer]:
    """The key that the user named, if it opens without asking anybody.

    It is all that such a hop has to offer. Trouble with it is told when its turn comes.
    """
    if not hop.strict:
        return []
    try:
        files = map(credentials.read_key_file, hop.identities)
        return [key for file in files for key in _unlock(login, file, environ, credentials.NOBODY)]
    except AuthError:
        return []


def _next(
    sources: Sequence[tuple[set[str], Iterator[Attempt]]], progress: Progress
) -> Attempt | None:
    """The next attempt of a kind that the server accepts now."""
    for methods, attempts in sources:
        if methods & progress.allowed:
            attempt = next(attempts, None)
            if attempt is not None:
                return attempt
    return None


def _offers(
    login: Login, hop: Hop, environ: Mapping[str, str], prompter: Prompter, progress: Progress
) -> Iterator[Offer]:
    """The keys to offer. Those that ssh_config or the user names stand first among the agent's.

    A server hangs up after a few keys, so none is offered twice.
    """
    files = _key_files(hop, progress)
    named = {file.blob for file in files if file.blob}
    agent = sorted(login.agent(), key=lambda offer: offer.blob not in named)
    if hop.only_identities:
        agent = [offer for offer in agent if offer.blob in named]
    yield from agent
    held = {offer.blob for offer in agent}
    # Keys that need no passphrase go first: asking may turn out to be needless.
    for file in sorted(files, key=lambda file: file.encrypted):
        if file.blob not in held:
            try:
                yield from _unlock(login, file, environ, prompter)
            except AuthError as error:
                _strict_or_note(hop, progress, error)


def _key_files(hop: Hop, progress: Progress) -> list[KeyFile]:
    """The key files of a hop that can be read; default files need not exist."""
    files = []
    for path in hop.identities:
        if hop.strict or path.exists():
            try:
                files.append(credentials.read_key_file(path))
            except AuthError as error:
                _strict_or_note(hop, progress, error)
    return files


def _strict_or_note(hop: Hop, progress: Progress, error: AuthError) -> None:
    """Trouble with a key is an error when the user named it, else part of the refusal."""
    if hop.strict:
        raise error
    progress.tried.append(f"no key, because {str(error).split('. ')[0]}")


def _unlock(
    login: Login, file: KeyFile, environ: Mapping[str, str], prompter: Prompter
) -> list[Offer]:
    """The key in a file as offers; its passphrase is asked for when it has one."""
    if file.kind in ("public", "agent"):
        raise credentials.no_agent_for(file)
    if not file.encrypted:
        return login.load(file, None)
    problem = "is encrypted, and nobody can be asked for its passphrase"
    for passphrase in credentials.passphrases(file.path, environ, prompter):
        try:
            return login.load(file, passphrase)
        except AuthError as error:
            if error.code != "passphrase":
                raise
            problem = "is encrypted, and the passphrase is wrong"
    raise AuthError(
        f"the key file {file.path} {problem}. Add it to the agent with ssh-add, or set "
        f"{credentials.PASSPHRASE_VARIABLE}.",
        "passphrase",
    )


def _password_attempts(
    login: Login,
    hop: Hop,
    passwords: Endpoint | None,
    environ: Mapping[str, str],
    prompter: Prompter,
    progress: Progress,
) -> Iterator[Attempt]:
    for secret in _secrets(hop, passwords, environ, prompter, progress):
        spent = False
        if secret.value is not None and PASSWORD in progress.allowed:
            yield Attempt(f"password from {secret.origin}", partial(login.password, secret.value))
            spent = progress.partial
        if INTERACTIVE in progress.allowed:
            rest = Secret(secret.origin, None if spent else secret.value)
            yield Attempt(
                f"keyboard-interactive with {secret.origin}",
                partial(login.interactive, _responder(hop, rest, prompter, progress)),
            )


def _secrets(
    hop: Hop,
    passwords: Endpoint | None,
    environ: Mapping[str, str],
    prompter: Prompter,
    progress: Progress,
) -> Iterator[Secret]:
    """Passwords that need nobody, then what a person types.

    Where the server only asks questions of its own, the person gets those instead.
    """
    if passwords is not None:
        yield from credentials.unattended_passwords(passwords, environ)
    for _ in range(credentials.PROMPTS):
        value = None
        if PASSWORD in progress.allowed:
            value = prompter.secret(f"Password for {hop.description}: ")
            progress.nobody_to_ask = value is None
        if progress.nobody_to_ask:
            return
        yield Secret("the prompt", value)


def _responder(hop: Hop, secret: Secret, prompter: Prompter, progress: Progress) -> Responder:
    """Answers the first hidden question with the password, and hands the others to a person."""
    unused = [secret.value] if secret.value is not None else []

    def respond(prompts: Sequence[tuple[str, bool]]) -> list[str]:
        answers = []
        for prompt, shown in prompts:
            if unused and not shown:
                answers.append(unused.pop())
                continue
            answer = prompter.secret(f"{hop.description}: {one_line(prompt)} ")
            progress.nobody_to_ask = answer is None
            # The protocol knows no "cannot answer"; an empty answer lets the server refuse.
            answers.append(answer or "")
        return answers

    return respond


def _refused(hop: Hop, progress: Progress) -> AuthError:
    accepts = ", ".join(sorted(map(one_line, progress.allowed))) or "nothing"
    tried = "; ".join(progress.tried) or "nothing, for want of a key or a password that it accepts"
    return AuthError(
        f"{hop.description} refused the login. Tried: {tried}. The server accepts: {accepts}. "
        "Check the user name; see `skynet guide ssh-keys` and `skynet guide passwords`."
    )


def _hung_up(hop: Hop, progress: Progress, words: str) -> ConnectError:
    said = f" It said: {one_line(words)!r}." if words else ""
    tried = "; ".join(progress.tried)
    if not tried:
        return ConnectError(
            f"{hop.description} closed the connection before the login.{said} Try again later, "
            "or ask its owner.",
            "closed",
        )
    only_one = len(progress.tried) == 1
    if only_one and not words:  # the link may have broken; nothing says that it was refused
        return ConnectError(
            f"{hop.description} closed the connection during the login, at the {tried}. Try again "
            "later; if it stays so, check the user name, or ask its owner.",
            "closed",
        )
    advice = (
        "Check the user name, and that this is the right one; see `skynet guide ssh-keys` and "
        "`skynet guide passwords`."
        if only_one
        else "If these were too many keys, name the right one with --identity, or set "
        "IdentitiesOnly in ssh_config."
    )
    return AuthError(
        f"{hop.description} refused the login and closed the connection.{said} Tried: {tried}. "
        f"{advice}",
        "too-many-tries",
    )
