"""Who is turned away: by certificate, by role, by name, by what else runs; 122, and both sides say why."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.system import peers
from tests.system.keys import NAMES, Keys
from tests.system.processes import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed, Manager

DAY = timedelta(days=1)


def check_refused(manager: Manager, *reasons: str) -> None:
    """Check that a manager was refused, at once, for these reasons."""
    assert manager.wait(20) == 122
    for reason in reasons:
        assert reason in manager.last_line
    assert manager.last_line.endswith("exit code 122 means that we were refused")
    assert (manager.result["cause"], manager.result["exit_code"]) == ("refused", 122)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Keys of another authority."""
    return Keys(tmp_path_factory.mktemp("strangers") / "keys")


def test_server_of_another_authority(bed: Bed, strangers: Keys) -> None:
    """A guest whose certificate another authority has issued is not trusted."""
    bed.serve(keys=strangers.guest)
    check_refused(bed.start("/bin/true"), "the certificate of 127.0.0.1 is not from our authority")


def test_manager_of_another_authority(bed: Bed, strangers: Keys, tmp_path: Path) -> None:
    """A host whose certificate another authority has issued is turned away, and the server's log tells."""
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name, folder in (("cert.pem", strangers.host), ("key.pem", strangers.host), ("ca.pem", bed.keys.host)):
        (mixed / name).write_bytes((folder / name).read_bytes())
    server = bed.serve()
    check_refused(bed.start("/bin/true", keys=mixed), "refused our certificate", "does not trust the authority")
    until(
        lambda: "turned away: " in server.log and "is not from our authority" in server.log,
        "a word in the server's log",
    )


DATES = {"expired": (-3 * DAY, -DAY, "expired"), "not-yet-valid": (DAY, 3 * DAY, "not yet valid")}


@pytest.mark.parametrize("case", DATES)
def test_server_out_of_date(bed: Bed, case: str) -> None:
    """A guest's certificate that has expired, or is not valid yet, is not accepted."""
    begin, end, reason = DATES[case]
    bed.serve(keys=bed.keys.dated("guest", f"vm-{case}", begin, end))
    check_refused(bed.start("/bin/true"), "the certificate of 127.0.0.1", reason)


@pytest.mark.parametrize("case", DATES)
def test_manager_out_of_date(bed: Bed, case: str) -> None:
    """A host's certificate that has expired, or is not valid yet, is refused by the server."""
    begin, end, reason = DATES[case]
    server = bed.serve()
    keys = bed.keys.dated("host", f"node-{case}", begin, end)
    check_refused(bed.start("/bin/true", keys=keys), "refused our certificate")
    until(lambda: f"{reason}" in server.log, "a word in the server's log")


def test_guest_as_manager(bed: Bed) -> None:
    """A guest's key opens no other guest: whoever breaks into one cannot launch anything in the next."""
    server = bed.serve()
    check_refused(bed.start("/bin/true", keys=bed.keys.guest), "refused our certificate", "other role")
    until(lambda: "turned away" in server.log, "a word in the server's log")


def test_host_as_server(bed: Bed) -> None:
    """A host's key cannot pose as a guest, even one that bears the guest's name: an impostor is given no command."""
    impostor = peers.another_service(bed.keys.issue("host", "node2", *NAMES), protocol="cmapp/1")
    with peers.listener(impostor) as port:
        manager = bed.start("/bin/true", guest=f"127.0.0.1:{port}")
        check_refused(manager, "the certificate of 127.0.0.1 is for the other role")


def test_wrong_name(bed: Bed) -> None:
    """A guest that answers at the address but bears another name is not the one that was asked for."""
    bed.serve(keys=bed.keys.issue("guest", "vm7"))
    check_refused(bed.start("/bin/true"), "is for another address", "--san 127.0.0.1")
    check_refused(bed.start("/bin/true", guest=f"localhost:{bed.server.port}"), "is for another name")


@pytest.mark.parametrize("serve", [peers.greet_plainly, peers.answer_plainly], ids=["greets", "answers"])
def test_plain_tcp(bed: Bed, serve: object) -> None:
    """A peer that speaks no TLS is told from a guest that is down."""
    assert callable(serve)
    with peers.listener(serve) as port:
        check_refused(bed.start("/bin/true", guest=f"127.0.0.1:{port}"), "does not speak TLS")


def test_tls_of_something_else(bed: Bed) -> None:
    """A TLS server that is not cmappserver is given no command, though its certificate is good."""
    with peers.listener(peers.another_service(bed.keys.guest)) as port:
        check_refused(bed.start("/bin/true", guest=f"127.0.0.1:{port}"), "not cmapp/1")


def test_name_that_is_taken(bed: Bed) -> None:
    """A second manager of a name whose manager lives is refused, and the application of the first is left alone."""
    script = "trap 'exit 3' TERM; while :; do sleep 0.05; done"
    first = bed.start("/bin/sh", "-c", script, name="taken", options=["--poll-interval", "200ms"])
    first.until_launched()
    second = bed.start("/bin/true", name="taken")
    check_refused(second, "already watched by manager", "name-taken")
    assert second.result["refusal"] == "name-taken"
    first.process.terminate()
    assert first.wait() in {3, 143}  # 143 if it had not set its trap yet


def test_name_is_free_again(bed: Bed) -> None:
    """A name is free as soon as its run is over, twenty times in a row."""
    assert [bed.run("/bin/sh", "-c", f"exit {code}", name="again").wait() for code in range(20)] == list(range(20))


def test_capacity(bed: Bed) -> None:
    """One more than max_applications is refused, with the limit told; when one has ended there is room again."""
    bed.serve("--max-applications", "2")
    runs = [bed.start("/bin/sleep", "1000") for _ in range(2)]
    for manager in runs:
        manager.until_launched()
    third = bed.start("/bin/true")
    check_refused(third, "2 applications run, which is max_applications", "(capacity)")
    runs[0].process.terminate()
    assert runs[0].wait() == 143
    assert bed.run("/bin/sh", "-c", "exit 4").wait() == 4
