"""What an operator changes all the time, what of it was acknowledged, and whether it is kept."""

import asyncio

from network_parts import Refused

# How many channels and routes each operator has at a time.
CHANNELS = 3
ROUTES = 6


class Journal:
    """What has to be there, what must not, and what may: changes that were not acknowledged."""

    THERE, GONE, MAYBE = "there", "gone", "maybe"

    def __init__(self):
        self.channels, self.participants, self.routes = {}, {}, {}
        self.acknowledged = self.unanswered_creations = 0
        self.refused, self.contradictions = {}, []

    async def change(self, states, key, becomes, doing):
        """Has something done, and notes what is known of it then."""
        before = states.get(key, self.GONE)
        # Whoever looks meanwhile may see either.
        states[key] = self.MAYBE
        try:
            await doing
        except Refused as refused:
            states[key] = before if refused.plain else self.MAYBE
            self.note(refused)
            self.compare(refused, before, becomes, key)
            return False
        states[key] = becomes
        self.acknowledged += 1
        return True

    def compare(self, refused, before, becomes, key):
        """Whether an answer denies what was acknowledged before."""
        known = {self.THERE: (self.GONE, "AlreadyExists"), self.GONE: (self.THERE, "NotFound")}
        state, answer = known[becomes]
        # It may be the moderator who is not found, while its node is away.
        denied = f"code = {answer}" in str(refused) and "moderator" not in str(refused)
        if before == state and denied:
            self.contradictions.append(f"{key} is {before}, but {refused}")

    def note(self, refused):
        text = str(refused).partition("desc = ")[2] or str(refused)
        words = " ".join(word for word in text.split() if "/" not in word)[:120]
        self.refused[words] = self.refused.get(words, 0) + 1

    def faults(self, what, states, found):
        """What of it is not as acknowledged."""
        found = list(found)
        twice = {key for key in found if found.count(key) > 1}
        faults = [f"{what} {key} is there twice" for key in twice]
        for key, state in states.items():
            if state == self.THERE and key not in found:
                faults.append(f"{what} {key} is lost")
            if state == self.GONE and key in found:
                faults.append(f"{what} {key} is back")
        return faults


class Operator:
    """One of those who change the network at the same time, each its own channels and routes."""

    def __init__(self, number, network, apps, journal, random):
        self.number, self.network, self.apps = number, network, apps
        self.journal, self.random = journal, random
        self.commands = network.operator
        self.routes = 0

    def own(self, states, state, owner):
        return [key for key, kept in states.items() if kept == state and owner(key)]

    def owns_channel(self, key):
        return self.journal.owners.get(key) is self

    def owns_participant(self, key):
        return self.owns_channel(key[0]) and self.journal.channels.get(key[0]) == Journal.THERE

    async def step(self):
        """One change that makes sense now."""
        steps = [self.create, self.add, self.add, self.remove, self.add_route, self.delete_route]
        channels = self.own(self.journal.channels, Journal.THERE, self.owns_channel)
        if len(channels) >= CHANNELS:
            steps[0] = self.delete
        await self.random.choice(steps)(channels)

    async def create(self, _):
        journal, moderator = self.journal, self.random.choice(self.apps)
        try:
            channel = await self.commands.create(moderator.full_name)
        except Refused as refused:
            journal.unanswered_creations += not refused.plain
            journal.note(refused)
            return
        journal.owners[channel] = self
        journal.moderators[channel] = moderator.name
        journal.channels[channel] = Journal.THERE
        journal.acknowledged += 1

    async def delete(self, channels):
        channel = self.random.choice(channels)
        doing = self.commands.delete(channel)
        await self.journal.change(self.journal.channels, channel, Journal.GONE, doing)

    async def add(self, channels):
        journal = self.journal
        free = [
            (channel, app.name)
            for channel in channels
            for app in self.apps
            if app.name != journal.moderators[channel]
            and journal.participants.get((channel, app.name)) != Journal.THERE
        ]
        if free:
            key = self.random.choice(free)
            await journal.change(
                journal.participants, key, Journal.THERE, self.commands.add(*key)
            )

    async def remove(self, _):
        journal = self.journal
        members = self.own(journal.participants, Journal.THERE, self.owns_participant)
        if members:
            key = self.random.choice(members)
            await journal.change(
                journal.participants, key, Journal.GONE, self.commands.remove(*key)
            )

    async def add_route(self, _):
        there = self.own(self.journal.routes, Journal.THERE, self.owns_route)
        if len(there) >= ROUTES:
            return await self.delete_route(_)
        self.routes += 1
        here, to = self.random.sample(self.network.nodes, 2)
        key = (here.label, f"churn/of-{self.number}/app", str(self.routes), to.label)
        doing = self.commands.add_route(key[0], f"{key[1]}/{key[2]}", key[3])
        await self.journal.change(self.journal.routes, key, Journal.THERE, doing)

    async def delete_route(self, _):
        there = self.own(self.journal.routes, Journal.THERE, self.owns_route)
        if there:
            key = self.random.choice(there)
            doing = self.commands.delete_route(key[0], f"{key[1]}/{key[2]}", key[3])
            await self.journal.change(self.journal.routes, key, Journal.GONE, doing)

    def owns_route(self, key):
        return key[1] == f"churn/of-{self.number}/app"


class Churn:
    """Several operators, until told to stop."""

    def __init__(self, network, apps, random, operators=2, pause=0.5):
        self.network, self.random, self.pause = network, random, pause
        self.journal = Journal()
        self.journal.owners, self.journal.moderators = {}, {}
        self.stopping = asyncio.Event()
        self.tasks = [
            asyncio.create_task(self.work(Operator(number, network, apps, self.journal, random)))
            for number in range(operators)
        ]

    async def work(self, operator):
        while not self.stopping.is_set():
            await operator.step()
            await asyncio.sleep(self.random.uniform(0, 2 * self.pause))

    async def stop(self):
        self.stopping.set()
        await asyncio.gather(*self.tasks)

    def wanted(self):
        """Routes that operators added, and those that they deleted."""
        routes = self.journal.routes.items()
        there = {key for key, state in routes if state == Journal.THERE}
        return there, {key for key, state in routes if state == Journal.GONE}

    async def faults(self, others):
        """What is not as acknowledged; `others` are channels that are there beside these."""
        journal, commands = self.journal, self.network.operator
        channels = await commands.channels()
        faults = list(journal.contradictions)
        faults += journal.faults("channel", journal.channels, channels)
        known = {*journal.channels, *others}
        unknown = [channel for channel in channels if channel not in known]
        if len(unknown) > journal.unanswered_creations:
            faults.append(f"channels that nobody created: {unknown}")
        members = []
        for channel in channels:
            members += [(channel, name) for name in await commands.participants(channel)]
        kept = {
            key: state
            for key, state in journal.participants.items()
            if journal.channels[key[0]] == Journal.THERE
        }
        faults += journal.faults("participant", kept, members)
        outline = await commands.outline()
        faults += journal.faults("route", journal.routes, outline)
        return faults + await self.faults_of_nodes()

    async def faults_of_nodes(self):
        """Routes that nodes have and should not, or the other way round."""
        endpoints = {node.label: node.endpoint for node in self.network.nodes}
        found = []
        for node in self.network.nodes:
            routes = await self.network.operator.routes(node.label)
            found += [(node.label, *route) for route in routes]
        states = {
            (node, name, number, endpoints[to]): state
            for (node, name, number, to), state in self.journal.routes.items()
        }
        return self.journal.faults("route on its node", states, found)
