"""What members report, counted: what was lost, what came twice, and for how long nothing came."""


class Window:
    """A time in which a server was down, from when it was killed until all was well again."""

    def __init__(self, label, killed, started=None, well=None):
        self.label, self.killed, self.started, self.well = label, killed, started, well

    def touches(self, begin, end):
        return begin <= self.well and end >= self.killed


# What was published just before a node was killed may have been on its way.
ON_THE_WAY = 1.0


class Pair:
    """What one member heard of another in a channel."""

    def __init__(self, sender, receiver, channel, reports):
        self.sender, self.receiver = sender, receiver
        self.sent = reports[sender.name]["sent"].get(channel, [])
        heard = reports[receiver.name]["heard"].get(channel, {})
        self.arrivals = sorted(heard.get(sender.name, []), key=lambda arrival: arrival[1])
        self.numbers = {number for number, _ in self.arrivals}

    def nodes(self):
        return {self.sender.node, self.receiver.node}

    def lost(self):
        return [number for number in range(len(self.sent)) if number not in self.numbers]

    def duplicated(self):
        return len(self.arrivals) - len(self.numbers)

    def unsent(self):
        """Numbers that its sender did not publish."""
        return len([number for number in self.numbers if number >= len(self.sent)])

    def gap(self, begin, end):
        """The longest time without an arrival that touches this time."""
        times = [time for _, time in self.arrivals]
        gaps = [
            after - before
            for before, after in zip(times, times[1:])
            if after >= begin and before <= end
        ]
        return max(gaps, default=0.0)


def pairs(members, channel, reports):
    return [
        Pair(sender, receiver, channel, reports)
        for receiver in members
        for sender in members
        if sender is not receiver
    ]


def of_each(members, channel, reports):
    """The counts of each member, for a network in which nothing is disturbed."""
    counts = {}
    for member in members:
        own = [pair for pair in pairs(members, channel, reports) if pair.receiver is member]
        counts[member.name] = {
            "node": member.node,
            "sent": len(reports[member.name]["sent"].get(channel, [])),
            "expected": sum(len(pair.sent) for pair in own),
            "received": sum(len(pair.numbers) for pair in own),
            "lost": sum(len(pair.lost()) for pair in own),
            "duplicated": sum(pair.duplicated() for pair in own),
            "foreign": reports[member.name]["foreign"]["count"] + sum(p.unsent() for p in own),
            "errors": reports[member.name]["errors"],
        }
    return counts


def is_disturbed(pair, begin, end, windows):
    """Whether a node of one of them was down meanwhile."""
    labels = {f"slim/{node}" for node in pair.nodes()}
    return any(window.label in labels and window.touches(begin, end) for window in windows)


def through_kills(found, windows, baseline):
    """The counts of pairs, some of whose nodes were killed, and whose gaps are compared with those
    of `baseline`, a time in which nothing was killed."""
    counts = {"sent": 0, "lost": 0, "lost_at_killed_nodes": 0, "duplicated": 0, "unsent": 0}
    for pair in found:
        counts["sent"] += len(pair.sent)
        counts["duplicated"] += pair.duplicated()
        counts["unsent"] += pair.unsent()
        for number in pair.lost():
            published = pair.sent[number]
            excused = is_disturbed(pair, published, published + ON_THE_WAY, windows)
            counts["lost_at_killed_nodes" if excused else "lost"] += 1
    counts["gap_without_kills"] = round(max(pair.gap(*baseline) for pair in found), 3)
    counts["gaps"] = {}
    for window in windows:
        span = (window.killed, window.well)
        others = [pair for pair in found if not is_disturbed(pair, *span, windows)]
        worst = max((pair.gap(*span) for pair in others), default=0.0)
        kept = counts["gaps"].setdefault(window.label, [])
        kept.append(round(worst, 3))
    return counts


def spread(values):
    """Median and worst."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    median = ordered[len(ordered) // 2]
    return {"count": len(ordered), "median": round(median, 3), "worst": round(ordered[-1], 3)}
