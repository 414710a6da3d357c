"""The history of sessions that outlive their connections (PROTOCOL.md, section 12): what the peers report, and what must hold.

A name is a client, over all its connections and sessions; its numbers go on from one session to the next."""

from collections import defaultdict

from .history import APP, CLIENT, DIRECTIONS, TO_APP, TO_CLIENT, History

DELIVERED = "delivered"
# The peer never got these; of all other outcomes nobody knows.
NOT_SENT = ("not taken", "expired; sent: No", "refused")


class V1History(History):
    """Takes what a `peer` and a `counting_app` report."""

    def __init__(self):
        super().__init__()
        self._outcomes = defaultdict(lambda: defaultdict(list))
        self._attached = {}
        self._resumes = defaultdict(int)
        self._detached = defaultdict(int)
        self._next_seq = defaultdict(lambda: 1)
        self._app_connections = defaultdict(int)
        self._app_resumes = defaultdict(int)
        # What came on connections of sessions that were over.
        self._late = defaultdict(list)
        # How many of the next messages to the app may be repeats.
        self._replays = defaultdict(int)
        # How many messages of the app had arrived when a session was lost: what it sent then may be missing.
        self._resets = defaultdict(list)
        self._broken = []
        self._hushed = defaultdict(int)

    def take_peer(self, report):
        """What a client tells."""
        name = report["name"]
        with self._lock:
            match report["event"]:
                case "sent":
                    self._sent[name, TO_APP] = report["number"]
                case "outcome":
                    self._outcomes[name][report["number"]].append(report["outcome"])
                case "message":
                    self._take_message(name, report)
                case "live":
                    self._take_live(name, report["resumed"])
                case "detached":
                    # Told behind the loss of a session, it says no more.
                    if name in self._attached:
                        self._attached[name] = False
                    self._detached[name] += 1
                case "reset":
                    self._attached.pop(name, None)
                    self._resets[name].append(len(self._arrived[name, TO_CLIENT]))
                    self._next_seq[name] = 1
                case "hushed":
                    self._hushed[name, CLIENT] += 1
        if report["event"] == "closed":
            self.ended(name, CLIENT, report["code"])

    def take_app(self, report):
        """What the app tells."""
        name = report.get("name")
        match report["event"]:
            case "opened":
                self._take_opened(name, report)
            case "arrived" if report.get("session", self.session(name)) != self.session(name):
                self._take_late(name, report["text"].rstrip("."))
            case "arrived" if not self._is_announced_repeat(name, report["text"]):
                self.arrived(name, TO_APP, report["text"])
            case "sent":
                with self._lock:
                    self._sent[name, TO_CLIENT] = report["number"]
            case "hushed":
                with self._lock:
                    self._hushed[name, APP] += 1
            case "closed":
                # An app that could not be reached hears late of the end: of an earlier session, perhaps.
                if report["session"] == self.session(name):
                    self.ended(name, APP, report["code"])

    def _take_opened(self, name, report):
        resumed = report.get("resumed", False)
        if resumed and report["session"] != self.session(name):
            self._broken.append(f"{name}: an app is back to a session that it never had")
        with self._lock:
            self._app_connections[name] += not resumed
            self._app_resumes[name] += resumed
            self._replays[name] = report.get("replayed", 0)
            self._ends.pop((name, APP), None)
        self.opened(name, report["session"])

    def _take_late(self, name, text):
        """On a connection of an earlier session, which the gateway has given up and the network has not: between two
        connections there is no order."""
        with self._lock:
            if text in self._late[name] or text in self._arrived[name, TO_APP]:
                self._broken.append(f"{name} to_app: {text!r} again, on the connection of an earlier session")
            self._late[name].append(text)

    def _is_announced_repeat(self, name, text):
        """An app that is back is told how many of the first messages may have come before."""
        with self._lock:
            if not self._replays[name]:
                return False
            self._replays[name] -= 1
            return text.rstrip(".") in self._arrived[name, TO_APP]

    def app_resumes(self, name):
        """How often the app came back to the session."""
        with self._lock:
            return self._app_resumes[name]

    def _take_message(self, name, report):
        if report["seq"] != self._next_seq[name]:
            self._broken.append(f"{name}: message {report['seq']} of the session, {self._next_seq[name]} was due")
        self._next_seq[name] = report["seq"] + 1
        self._arrived[name, TO_CLIENT].append(report["text"].rstrip("."))

    def _take_live(self, name, resumed):
        # Of losses that the page had no time for it is told the last state only: live may follow live.
        if resumed != (name in self._attached):
            self._broken.append(f"{name}: live with resumed={resumed}, {'after a loss' if not resumed else 'anew'}")
        self._attached[name] = True
        self._resumes[name] += resumed

    def is_live(self, name):
        """Whether the client has a connection now."""
        with self._lock:
            return bool(self._attached.get(name))

    def resumes(self, name):
        """How often the client came back to its session."""
        with self._lock:
            return self._resumes[name]

    def resets(self, name):
        """How often the client lost its session."""
        with self._lock:
            return len(self._resets[name])

    def hushes(self, name, side):
        """How often this side has stopped talking."""
        with self._lock:
            return self._hushed[name, side]

    def numbers(self, name, direction):
        """How many messages were sent, and how many arrived."""
        with self._lock:
            return self._sent[name, direction], len(self._arrived[name, direction])

    def outcomes(self, name):
        """Each message's outcomes by its number."""
        with self._lock:
            return {number: list(told) for number, told in self._outcomes[name].items()}

    def delivered(self, name):
        """How many messages the client was told are delivered."""
        return sum(DELIVERED in told for told in self.outcomes(name).values())

    def misdelivered(self):
        """Beside what the parent forbids: outcomes that are not true, and sessions that are not kept."""
        found = list(self._broken)
        with self._lock:
            for (name, direction), texts in self._arrived.items():
                found += self._out_of_order(name, direction, texts)
            for name, outcomes in self._outcomes.items():
                found += self._untrue(name, outcomes)
            for name, count in self._app_connections.items():
                if count > len(self._resets[name]) + 1:
                    found.append(f"{name}: {count} connections to the app, {len(self._resets[name])} sessions lost")
        return found

    def _out_of_order(self, name, direction, texts):
        """The first break says what went wrong; what follows it would only repeat that."""
        last = 0
        for place, text in enumerate(texts):
            whose, _, number = text.rpartition(" ")
            if whose != f"{name} {direction}" or not number.isdigit():
                return [f"{name} {direction}: got {text!r}, which is another's or nobody's"]
            number = int(number)
            if number > self._sent[name, direction]:
                return [f"{name} {direction}: {text!r} was never sent"]
            if number <= last:
                return [f"{name} {direction}: number {number} again or too late, {last + 1} was due"]
            if not all(self._may_miss(name, direction, missing, place) for missing in range(last + 1, number)):
                return [f"{name} {direction}: number {number} too early: a hole or a swap, {last + 1} was due"]
            last = number
        return []

    def _may_miss(self, name, direction, number, place):
        """Only with a session may a message be lost; the client is told which."""
        if direction == TO_CLIENT:
            return place in self._resets[name]
        told = self._outcomes[name].get(number)
        return bool(told) and DELIVERED not in told

    def _untrue(self, name, outcomes):
        arrived = {text.rpartition(" ")[2] for text in self._arrived[name, TO_APP] + self._late[name]}
        found = []
        for number, told in sorted(outcomes.items()):
            came = str(number) in arrived
            if len(told) > 1:
                found.append(f"{name} to_app: number {number} has {len(told)} outcomes: {told}")
            elif number > self._sent[name, TO_APP]:
                found.append(f"{name} to_app: number {number} was never sent, and is said to be {told[0]}")
            elif told[0] == DELIVERED and not came:
                found.append(f"{name} to_app: number {number} is said to be delivered, and is lost")
            elif told[0].startswith(NOT_SENT) and came:
                found.append(f"{name} to_app: number {number} is said to be {told[0]}, and arrived")
        return found[:1]

    def lost(self):
        """What did not arrive or has no outcome, although neither side was told of an end."""
        living = set(self.open_names(CLIENT)) & set(self.open_names(APP))
        with self._lock:
            return [one for name in sorted(living) for one in self._missing(name)]

    def _missing(self, name):
        if not self._attached.get(name):
            yield f"{name}: has no connection"
        for direction in DIRECTIONS:
            sent, texts = self._sent[name, direction], self._arrived[name, direction]
            last = int(texts[-1].rpartition(" ")[2]) if texts else 0
            if last != sent and not self._resets[name]:
                yield f"{name} {direction}: {last} of {sent} arrived"
        for number in range(1, self._sent[name, TO_APP] + 1):
            told = self._outcomes[name].get(number)
            if not told:
                yield f"{name} to_app: number {number} has no outcome"
                return
            if not self._resets[name] and told != [DELIVERED]:
                yield f"{name} to_app: number {number} is {told} in a session that lives"
                return

    def check_nobody_detached(self):
        """The run without faults: every client has its first connection."""
        self.check_nobody_ended()
        with self._lock:
            assert not any(self._detached.values()), f"detached: {dict(self._detached)}"
            assert not any(self._resets.values()), f"sessions lost: {dict(self._resets)}"
