"""The request limits that AWS documents, as it keeps them: token buckets for each account and region."""

import time

# Buckets of several actions, then those of one each: (actions, at once, a second).
DOCUMENTED = [
    ({"RunTask"}, 20, 20),
    ({"RunTask", "StopTask"}, 100, 40),
    ({"DescribeTasks", "ListTasks"}, 100, 20),
    ({"CreateFleet"}, 50, 5),
    ({"TerminateInstances"}, 100, 5),
    ({"DescribeInstances"}, 100, 20),
    ({"DescribeNetworkInterfaces"}, 100, 20),
]


class Bucket:
    def __init__(self, actions, size, rate):
        self.actions, self.size, self.rate = actions, size, rate
        self.tokens, self.at = float(size), time.monotonic()

    def take(self):
        now = time.monotonic()
        self.tokens = min(self.size, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Limits:
    """None unless a test asks for them."""

    def __init__(self):
        self.buckets = []

    def documented(self):
        self.buckets = [Bucket(*each) for each in DOCUMENTED]

    def refuse(self, action):
        """Whether a call is one too many."""
        met = [bucket for bucket in self.buckets if action in bucket.actions]
        return not all([bucket.take() for bucket in met])
