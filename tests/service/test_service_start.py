"""The start of the service while something else happens in the process: a fork, a signal, no descriptors left."""

from tests.support import output, program

ENSURE = """
import faulthandler, os, signal, sys, threading, time, warnings
from importlib.machinery import PathFinder
import obsloop
from obsloop import service

faulthandler.dump_traceback_later(40, exit=True)
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12+ warn of a fork in a process with threads
SETTINGS = obsloop.Settings(address="127.0.0.1:0", watchdog=False)

def make_loop():
    obsloop.Loop(settings=SETTINGS).close()

class Slow:
    '''A finder, first on the path, and a loader: one module of the service takes its time to load.'''
    def find_spec(self, name, path=None, target=None):
        if name != "obsloop.service.server":
            return None
        spec = PathFinder.find_spec(name, path, target)
        self.loader, spec.loader = spec.loader, self
        return spec
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        importing.set()
        when_imported()
        module.__spec__.loader = self.loader
        self.loader.exec_module(module)

importing = threading.Event()
when_imported = lambda: time.sleep(0.3)
sys.meta_path.insert(0, Slow())
"""


def test_a_fork_waits_for_the_service_to_be_imported():
    """Forked while the first loop with an address loads the service in another thread: the child makes one as well."""
    assert (
        output(
            ENSURE
            + """
thread = threading.Thread(target=make_loop)
thread.start()
importing.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    make_loop()
    os._exit(0 if service.ensure("127.0.0.1:0", unhealthy_after=1.0) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
thread.join()
"""
        )
        == "0\n"
    )


def test_a_fork_does_not_wait_for_ever():
    """The thread that loads the service waits for the forking thread: the fork goes on after a second."""
    assert (
        output(
            ENSURE
            + """
forked = threading.Event()
when_imported = forked.wait
thread = threading.Thread(target=make_loop)
thread.start()
importing.wait()
pid = os.fork()
if pid == 0:
    os._exit(0)
forked.set()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
thread.join()
print(service.ensure("127.0.0.1:0", unhealthy_after=1.0) is not None)
"""
        )
        == "0\nTrue\n"
    )


def test_a_signal_handler_may_make_a_loop_while_the_service_starts():
    """Its loop is made at once, and the one that was interrupted is served."""
    assert (
        output(
            ENSURE
            + """
made = []

def handler(*_):
    make_loop()
    made.append(service.ensure("127.0.0.1:0", unhealthy_after=1.0))

def when_imported():
    signal.raise_signal(signal.SIGUSR1)

signal.signal(signal.SIGUSR1, handler)
make_loop()
print(made, service.ensure("127.0.0.1:0", unhealthy_after=1.0) is not None)
"""
        )
        == "[None] True\n"
    )


def test_code_within_the_start_may_make_a_loop():
    """A finalizer that runs while the address is looked up: nothing waits for itself."""
    assert (
        output(
            ENSURE
            + """
from obsloop.service import lifecycle
parse = lifecycle.parse_addresses

def parse_addresses(address):
    lifecycle.parse_addresses = parse
    make_loop()
    return parse(address)

lifecycle.parse_addresses = parse_addresses
make_loop()
print(service.ensure("127.0.0.1:0", unhealthy_after=1.0) is not None)
"""
        )
        == "True\n"
    )


def test_a_loop_can_be_made_with_the_last_descriptors():
    """There are as many as a stock loop needs: ours is made too, and one line says that it is not served."""
    done = program("""
import os, resource
import obsloop

settings = obsloop.Settings(address="127.0.0.1:0")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for _ in range(3):  # epoll, and both ends of the loop's own pipe
    os.close(taken.pop())
for _ in range(2):
    loop = obsloop.Loop(settings=settings)
    loop.call_soon(print, "ran")
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
""")
    assert (done.returncode, done.stdout) == (0, "ran\nran\n"), done.stderr
    assert done.stderr.startswith("obsloop: cannot serve on 127.0.0.1:0: ")
    assert done.stderr.count("\n") == 1, done.stderr
