"""The one service of a process: started once, refused with one clear line, clean in a child after fork. Each
test is a real process, since that is what the service belongs to.
"""

import os
import socket
import subprocess
import sys

import pytest


def run(code, *argv, **variables):
    """Run `code`; return its result, standard error included."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("OBSLOOP_")} | variables
    prelude = "import os, sys, urllib.request\nfrom obsloop import service\n" + (
        "def get(url): return urllib.request.urlopen(url, timeout=60).status\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code, *argv],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def test_it_says_nothing_in_a_program_that_asked_for_it_in_code():
    """The program knows the URL, and its stderr is its own."""
    result = run("url = service.ensure('127.0.0.1:0', unhealthy_after=1.0); print(get(url + '/healthz'))")
    assert (result.stdout.strip(), result.stderr) == ("200", "")


def test_under_obsloop_run_it_says_where_it_serves():
    """The way to find out which port 0 became."""
    result = run("print(service.ensure('127.0.0.1:0', unhealthy_after=1.0))", OBSLOOP_RUN_PID="1")
    assert result.stderr == f"obsloop: serving {result.stdout.strip()}/metrics\n"


def test_there_is_one_service_and_the_first_address_wins():
    """A second address gets the first one's URL, and one line for the person who meant both."""
    result = run(
        "import threading\n"
        "first = service.ensure('127.0.0.1:0', unhealthy_after=1.0)\n"
        "assert all(service.ensure('127.0.0.1:0', unhealthy_after=9.0) == first for _ in range(1000))\n"
        "assert all(service.ensure('localhost:0', unhealthy_after=1.0) == first for _ in range(1000))\n"
        "print(sum(t.name == 'obsloop-service' for t in threading.enumerate()))"
    )
    assert result.stdout == "1\n", result.stderr
    assert result.stderr.count("\n") == 1
    assert "already served at http://127.0.0.1:" in result.stderr
    assert "localhost:0" in result.stderr


def test_threads_that_ask_at_once_get_the_same():
    """One of them starts it, the others wait for that."""
    result = run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(20) as pool:\n"
        "    jobs = [pool.submit(service.ensure, '127.0.0.1:0', unhealthy_after=1.0) for _ in range(100)]\n"
        "print(len({job.result() for job in jobs}))"
    )
    assert result.stdout == "1\n", result.stderr


def test_a_port_in_use_is_told_once_and_the_program_runs_on(taken):
    """The line names the port and the ways to choose another."""
    code = f"print([service.ensure('127.0.0.1:{taken}', unhealthy_after=1.0) for _ in range(3)])"
    result = run(code)
    assert result.stdout == "[None, None, None]\n"
    assert result.stderr == (
        f"obsloop: cannot serve on 127.0.0.1:{taken}: the port {taken} is in use by another process. Choose another "
        "with --address HOST:PORT or OBSLOOP_ADDRESS (port 0 picks a free one). The program runs on, observed but "
        "not served.\n"
    )


def test_a_child_of_obsloop_run_takes_a_free_port_instead(taken):
    """Its sibling or parent has the port, and nobody typed this one's."""
    code = f"url = service.ensure('127.0.0.1:{taken}', unhealthy_after=1.0); print(url, get(url + '/healthz'))"
    result = run(code, OBSLOOP_RUN_PID="1")
    url, status = result.stdout.split()
    assert status == "200"
    assert url != f"http://127.0.0.1:{taken}"
    assert result.stderr.startswith(f"obsloop: serving {url}/metrics (process ")
    assert f"port {taken} is in use" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_first_process_of_obsloop_run_does_not(taken):
    """There somebody expects the port that was asked for."""
    code = (
        "os.environ['OBSLOOP_RUN_PID'] = str(os.getpid())\n"
        f"print(service.ensure('127.0.0.1:{taken}', unhealthy_after=1.0))"
    )
    result = run(code)
    assert result.stdout == "None\n"
    assert "is in use by another process" in result.stderr


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nonsense", "there is no port"),
        ("no-such-host.invalid:0", "is not known"),
        ("192.0.2.1:0", "is not an address of this machine"),
    ],
)
def test_any_other_reason_is_told_as_clearly(address, reason):
    """Never an exception into the program."""
    result = run(f"print(service.ensure({address!r}, unhealthy_after=1.0))")
    assert result.stdout == "None\n"
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_program_without_stderr_is_left_alone(taken):
    """sys.stderr is None in a daemon, and closed in some."""
    result = run(
        f"sys.stderr.close()\nservice.ensure('127.0.0.1:{taken}', unhealthy_after=1.0)\n"
        "sys.stderr = None\nservice.ensure('127.0.0.1:x', unhealthy_after=1.0)\nprint('on')"
    )
    assert (result.returncode, result.stdout) == (0, "on\n")


def test_no_threads_left_to_start_is_no_reason_to_fail():
    """The socket is closed again and the program runs on."""
    result = run(
        "import threading\n"
        'def start(self): raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = start\n"
        "print(service.ensure('127.0.0.1:0', unhealthy_after=1.0))\n"
    )
    assert result.stdout == "None\n"
    assert "can't start new thread" in result.stderr


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6_is_served():
    """With brackets in the address and in the URL."""
    result = run("url = service.ensure('[::1]:0', unhealthy_after=1.0); print(url, get(url + '/healthz'))")
    assert result.stdout.startswith("http://[::1]:"), result.stderr
    assert result.stdout.endswith(" 200\n")


def test_a_fork_waits_for_the_service_to_be_idle():
    """A child gets every lock as it is at that moment; one that the service's thread holds would be held for ever."""
    result = run(
        "import threading, time, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from obsloop.service import messages, routes\n"
        "lock, begun = threading.Lock(), threading.Event()\n"
        "def slow(request, options):\n"
        "    with lock:\n"
        "        begun.set()\n"
        "        time.sleep(0.3)\n"
        "    return messages.plain(200, 'slow')\n"
        "routes.ROUTES['/slow'] = routes.Route('/slow', '', slow)\n"
        "url = service.ensure('127.0.0.1:0', unhealthy_after=1.0)\n"
        "client = threading.Thread(target=get, args=[url + '/slow'])\n"
        "client.start()\n"
        "begun.wait()\n"
        "if os.fork() == 0:\n"
        "    os._exit(0 if lock.acquire(timeout=60) else 1)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), get(url + '/slow'))\n"
        "client.join()"
    )
    assert result.stdout == "0 200\n", result.stderr


def test_after_fork_the_child_starts_its_own_and_lets_go_of_the_parents():
    """The child serves on its own port; when the parent has gone, the parent's port is free, not held by the
    child.
    """
    result = run(
        "import warnings, time\n"
        "warnings.simplefilter('ignore')\n"  # 3.12+ warn of fork in a process with threads
        "parent = service.ensure('127.0.0.1:0', unhealthy_after=1.0)\n"
        "get(parent + '/healthz')\n"
        "if os.fork() == 0:\n"
        "    child = service.ensure('127.0.0.1:0', unhealthy_after=1.0)\n"
        "    assert child != parent\n"
        "    assert get(child + '/healthz') == 200\n"
        "    assert get(parent + '/healthz') == 200\n"
        "    import socket\n"
        "    def internet_sockets():\n"
        "        families = []\n"
        "        for fd in range(3, 100):\n"
        "            try: families.append(socket.socket(fileno=os.dup(fd)).family)\n"
        "            except OSError: pass\n"
        "        return families.count(socket.AF_INET)\n"
        "    until = time.monotonic() + 20\n"  # its thread closes the connections that were answered
        "    while internet_sockets() > 1 and time.monotonic() < until: time.sleep(0.01)\n"
        "    print('child ok', internet_sockets(), flush=True)\n"
        "    os._exit(0)\n"
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == 0\n"
        "print('parent ok', get(parent + '/healthz'), service.ensure('127.0.0.1:0', unhealthy_after=1.0) == parent)\n"
    )
    assert result.stdout == "child ok 1\nparent ok 200 True\n", result.stderr


def test_processes_that_start_together_are_all_served():
    """Six processes wait for one another, twenty times, and then ask for the same port: all of them serve there."""
    result = run(
        "import json, multiprocessing, socket, urllib.request, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from obsloop.service import lifecycle\n"
        "def worker(port, barrier, urls):\n"
        "    barrier.wait()\n"
        "    url = service.ensure(f'127.0.0.1:{port}', unhealthy_after=1.0)\n"
        "    barrier.wait()\n"
        "    workers = json.load(urllib.request.urlopen(url + '/healthz', timeout=60))['workers']\n"
        "    urls.put((url, len(workers)))\n"
        "    barrier.wait()\n"
        "context = multiprocessing.get_context('fork')\n"
        "for _ in range(20):\n"
        "    with socket.create_server(('127.0.0.1', 0)) as free: port = free.getsockname()[1]\n"
        "    barrier, urls = context.Barrier(6), context.SimpleQueue()\n"
        "    children = [context.Process(target=worker, args=(port, barrier, urls)) for _ in range(6)]\n"
        "    for child in children: child.start()\n"
        "    found = [urls.get() for _ in children]\n"
        "    for child in children: child.join()\n"
        "    print(found.count((f'http://127.0.0.1:{port}', 6)))\n",
        OBSLOOP_RUN_PID="1",
    )
    assert result.stdout == "6\n" * 20, result.stderr


def test_each_address_serves_its_paths():
    """`/metrics` for others, all of it here; elsewhere 404 says what there is, and the index lists no more."""
    result = run(
        "import urllib.error\n"
        "from obsloop.service import lifecycle\n"
        "url = service.ensure('127.0.0.1:0, localhost:0 / /metrics /healthz', unhealthy_after=1.0)\n"
        "ports = [l.sock.getsockname()[1] for l in lifecycle._state.server._listeners]\n"
        "assert url == f'http://127.0.0.1:{ports[0]}'\n"
        "for port in ports:\n"
        "    for path in ('/healthz', '/metrics', '/tasks', '/slow'):\n"
        "        try: print(get(f'http://localhost:{port}{path}'), end=' ')\n"
        "        except urllib.error.HTTPError as error: print(error.code, error.read().decode().strip(), end=' ')\n"
        "    index = urllib.request.urlopen(f'http://localhost:{port}/?format=html', timeout=60).read().decode()\n"
        "    print('/tasks' in index, '/metrics' in index)\n"
    )
    missing = "404 There is nothing at this path. Served here: /, /metrics, /healthz"
    assert result.stdout == f"200 200 200 200 True True\n200 200 {missing} {missing} False True\n", result.stderr


def test_an_address_that_cannot_be_served_leaves_the_others(taken):
    """One line says so, and under `obsloop run` each that is served has its own."""
    result = run(
        "os.environ['OBSLOOP_RUN_PID'] = str(os.getpid())\n"
        f"print(service.ensure('127.0.0.1:{taken}, 127.0.0.1:0, localhost:0 /healthz', unhealthy_after=1.0))"
    )
    assert result.stdout.startswith("http://127.0.0.1:")
    first, second, third = result.stderr.splitlines()
    assert f"cannot serve on 127.0.0.1:{taken}: the port {taken} is in use by another process" in first
    assert first.endswith("The other addresses are served.")
    assert second == f"obsloop: serving {result.stdout.strip()}/metrics"
    assert third.startswith("obsloop: serving http://localhost:")
    assert third.endswith("/healthz")


ASK_UNIX = (
    "import socket\n"
    "def ask(path):\n"
    "    with socket.socket(socket.AF_UNIX) as sock:\n"
    "        sock.settimeout(10)\n"
    "        sock.connect(path)\n"
    "        sock.sendall(b'GET /healthz HTTP/1.1\\r\\n\\r\\n')\n"
    "        return sock.recv(65536).split()[1].decode()\n"
)


def test_a_unix_socket_is_served_and_goes_with_its_process(tmp_path):
    """Only its user may connect, whatever the umask is; at the end of the process the file is removed."""
    path = tmp_path / "obsloop.sock"
    code = f"{ASK_UNIX}os.umask(0)\nurl = service.ensure('unix:{path}', unhealthy_after=1.0)\n"
    result = run(f"{code}print(url, ask({str(path)!r}), oct(os.stat({str(path)!r}).st_mode))", OBSLOOP_RUN_PID="1")
    assert result.stdout == f"unix:{path} 200 0o140600\n", result.stderr
    assert result.stderr == (f"obsloop: serving unix:{path} (curl --unix-socket {path} http://localhost/metrics)\n")
    assert not path.exists()


def test_a_unix_socket_gets_the_access_rights_that_are_set(tmp_path):
    """The group's scraper may connect where you say so, whatever the umask is."""
    path = tmp_path / "obsloop.sock"
    code = f"os.umask(0o077)\nservice.ensure('unix:{path}', unhealthy_after=1.0, socket_mode=0o660)\n"
    assert run(f"{code}print(oct(os.stat({str(path)!r}).st_mode))").stdout == "0o140660\n"


def test_the_socket_file_of_a_dead_process_is_replaced(tmp_path):
    """A process that was killed leaves its file."""
    path = tmp_path / "obsloop.sock"
    run(f"service.ensure('unix:{path}', unhealthy_after=1.0)\nos.kill(os.getpid(), 9)")
    assert path.is_socket()
    result = run(f"{ASK_UNIX}print(service.ensure('unix:{path}', unhealthy_after=1.0), ask({str(path)!r}))")
    assert result.stdout == f"unix:{path} 200\n", result.stderr


def test_what_is_not_a_dead_processs_socket_stays(tmp_path):
    """A living process's socket, another kind of socket, a file, a link to a file: each is refused in one line."""
    living, other, file, link = (tmp_path / name for name in ("living", "other", "file", "link"))
    file.write_text("precious")
    link.symlink_to(file)
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as two:
        one.bind(str(living))
        one.listen()
        two.bind(str(other))
        for path, reason in (
            (living, f"the file {living} is in use by another process"),
            (other, f"the file {other} is in use by another process"),
            (file, f"there is a file {file} that is not a socket"),
            (link, f"there is a file {link} that is not a socket"),
            (tmp_path / "no" / "folder", f"there is no folder {tmp_path / 'no'}"),
        ):
            result = run(f"print(service.ensure('unix:{path}', unhealthy_after=1.0))")
            assert result.stdout == "None\n"
            assert f"cannot serve on unix:{path}: {reason}" in result.stderr
            assert result.stderr.count("\n") == 1
        assert living.is_socket()
        assert other.is_socket()
    assert file.read_text() == "precious"
    assert link.is_symlink()


def test_workers_share_a_unix_path(tmp_path):
    """Six processes that start together are all served there, and replace the file of a dead one."""
    path = str(tmp_path / "obsloop.sock")
    result = run(
        f"{ASK_UNIX}"
        "import multiprocessing, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from obsloop.service import lifecycle\n"
        f"path = {path!r}\n"
        "with socket.socket(socket.AF_UNIX) as dead: dead.bind(path)\n"
        "def worker(barrier, urls):\n"
        "    barrier.wait()\n"
        "    url = service.ensure(f'unix:{path}', unhealthy_after=1.0)\n"
        "    barrier.wait()\n"
        "    urls.put((url, url and ask(url.removeprefix('unix:'))))\n"
        "    barrier.wait()\n"
        "context = multiprocessing.get_context('fork')\n"
        "for _ in range(5):\n"
        "    barrier, urls = context.Barrier(6), context.SimpleQueue()\n"
        "    children = [context.Process(target=worker, args=(barrier, urls)) for _ in range(6)]\n"
        "    for child in children: child.start()\n"
        "    print(sorted(urls.get() for _ in children))\n"
        "    for child in children: child.join()\n",
        OBSLOOP_RUN_PID="1",
    )
    assert result.stdout == f"{[(f'unix:{path}', '200')] * 6}\n" * 5, result.stderr


def test_a_forked_child_does_not_remove_its_parents_socket(tmp_path):
    """It has the parent's list of things to do at its end."""
    path = tmp_path / "obsloop.sock"
    result = run(
        f"{ASK_UNIX}"
        "import warnings\n"
        "warnings.simplefilter('ignore')\n"
        f"service.ensure('unix:{path}', unhealthy_after=1.0)\n"
        "if os.fork() == 0: sys.exit(0)\n"
        "os.wait()\n"
        f"print(ask({str(path)!r}))"
    )
    assert result.stdout == "200\n", result.stderr


def test_there_are_three_threads_however_many_ask():
    """None per client, and all are daemons: none keeps the program from ending."""
    result = run(
        "import threading\n"
        "url = service.ensure('127.0.0.1:0', unhealthy_after=1.0)\n"
        "for _ in range(20):\n"
        "    for path in ('/healthz', '/metrics', '/tasks', '/slow', '/'): get(url + path)\n"
        "threads = [t for t in threading.enumerate() if t.name.startswith('obsloop-service')]\n"
        "print(*sorted(t.name for t in threads), all(t.daemon for t in threads))"
    )
    assert result.stdout == "obsloop-service obsloop-service-metrics obsloop-service-pages True\n", result.stderr
