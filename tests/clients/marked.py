"""Payloads that show where they come from, and that every byte has arrived."""

import hashlib

# Longer ones are told apart by their hash.
SHOWN = 200


def padded(text, size):
    """The text and bytes that follow from it, `size` bytes in all, or the text if that is longer."""
    head = text.encode()
    if size <= len(head):
        return head
    # No two blocks are equal, so a piece of the wrong place shows.
    rest = size - len(head) - 1
    blocks = (hashlib.sha256(head + b"%d" % number).digest() for number in range(rest // 32 + 1))
    return head + b"\n" + b"".join(blocks)[:rest]


def shown(payload):
    """What a client prints for a payload."""
    head, _, rest = payload.partition(b"\n")
    if not rest and len(payload) <= SHOWN:
        return head.decode(errors="replace")
    digest = hashlib.sha256(payload).hexdigest()
    return f"{head[:SHOWN].decode(errors='replace')} of {len(payload)} bytes {digest}"
