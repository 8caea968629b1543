"""A person at the keyboard, for what asks for passwords and passphrases."""

from __future__ import annotations


class Person:
    """Answers prompts from a list, then with None, and remembers what was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def secret(self, prompt: str) -> str | None:
        self.asked.append(prompt)
        return self.answers.pop(0) if self.answers else None
