"""What a fork waits for: not for a hook or an exporter that hangs, more than once."""

from tests.support import output

FORKING = """
import os, threading, time, urllib.request, warnings
import obsloop

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12+ warn of a fork in a process with threads

def fork(exit_with=lambda: 0):
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os._exit(exit_with())
    took = time.monotonic() - began
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return took

def watchdogs():
    return sum(thread.name == "obsloop-watchdog" for thread in threading.enumerate())
"""


def test_a_hook_that_hangs_is_waited_for_once():
    """Ten forks while a hook in the watchdog's thread hangs: one second in all, one thread, and it goes on later."""
    assert (
        output(
            FORKING
            + """
hanging, release, released, seen = threading.Event(), threading.Event(), threading.Event(), []

class Hangs:
    def on_loop_blocked(self, event):
        seen.append(event)
        if len(seen) == 1:
            hanging.set()
            release.wait()
            released.set()

def block():
    time.sleep(0.3)

loop = obsloop.Loop()
loop.add_instrument(Hangs())
loop.call_soon(hanging.wait)
loop.call_soon(loop.stop)
loop.run_forever()

def run_blocked():
    loop.call_soon(block)
    loop.call_soon(loop.stop)
    loop.run_forever()

took = []
for _ in range(5):
    took.append(fork())
    run_blocked()
    took.append(fork())
print(sum(took) < 6, watchdogs())
release.set()
released.wait()
end = time.monotonic() + 20
while len(seen) < 2 and time.monotonic() < end:
    run_blocked()
print(len(seen) > 1, watchdogs())
fork()
loop.close()
"""
        )
        == "True 1\nTrue 1\n"
    )


def test_an_exporter_that_hangs_is_waited_for_once():
    """Ten forks while a scrape hangs: about one second in all."""
    assert (
        output(
            FORKING
            + """
from obsloop import service
from obsloop.service import routes

class Exporter:
    def render(self, accept):
        hanging.set()
        release.wait()
        return "text/plain", b"done"

routes._exporter = Exporter()
hanging, release = threading.Event(), threading.Event()
url = service.ensure("127.0.0.1:0", unhealthy_after=1.0)
answers = []
client = threading.Thread(target=lambda: answers.append(urllib.request.urlopen(url + "/metrics", timeout=30).read()))
client.start()
hanging.wait()
took = [fork() for _ in range(10)]
print(sum(took) < 6)
release.set()
client.join()
print(answers)
"""
        )
        == "True\n[b'done']\n"
    )
