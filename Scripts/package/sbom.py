"""Prints what the programs of a release are made of, as a CycloneDX document: sbom.py VERSION SECONDS-SINCE-1970

Runs in the repository after both programs were built. Needs cyclonedx-python-lib with json-validation.
"""
import datetime
import json
import pathlib
import platform
import re
import subprocess
import sys
import uuid

from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

# Each program with the options that its package was built with, and the static libraries of the system in it.
PROGRAMS = {
    "uffd-selftest": (["--scratch-path", ".build-static"], ["libc.a", "libstdc++.a", "libgcc.a"]),
    "uffd-pager": (["--package-path", "Tools", "--scratch-path", ".build-tools", "--traits", "NBD"], []),
}
# uffd-selftest for arm64, if it was compiled: the packages of Debian sid that it was linked with, a line each.
ARM64 = ("uffd-selftest-aarch64", ["--scratch-path", ".build-arm64/host"], pathlib.Path(".build-arm64/packages"))
# The licences of the system's libraries, by the first letters of their packages.
SYSTEM = {
    "libc6": "LGPL-2.1-or-later",
    "libstdc++": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libgcc": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libswiftlang": "Apache-2.0",
    "swiftlang": "Apache-2.0",
    "linux-libc-dev": "GPL-2.0-only WITH Linux-syscall-note",
}
# Parts of other projects in a package, by what their files say.
FOREIGN = {"MIT": ("Sources/*/LICENSE*", "MIT License"), "BSD-3-Clause": ("Sources/C*/*.c", "SPDX-License-Identifier: BSD-3-Clause")}
APACHE = re.compile(r"Apache License\s+Version 2\.0")


def output_of(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def licence_of(folder):
    """The licence whose text the package has, which is the one that Swift's packages use, and those of parts in it."""
    folder = pathlib.Path(folder)
    if not any(APACHE.search(file.read_text()) for file in folder.glob("LICENSE*")):
        sys.exit(f"{folder} has another licence than Apache-2.0")
    parts = [name for name, (files, words) in FOREIGN.items() if any(words in file.read_text() for file in folder.glob(files))]
    return [LicenseExpression(" AND ".join(["Apache-2.0", *parts])) if parts else DisjunctiveLicense(id="Apache-2.0")]


def swift_packages(options):
    """Each package in the tree of a program's package, by its identity."""
    tree = json.loads(output_of("swift", "package", *options, "show-dependencies", "--format", "json"))
    found = {}

    def visit(package):
        for child in package["dependencies"]:
            if child["url"].startswith("https://"):
                found[child["identity"]] = child
            visit(child)

    visit(tree)
    return found


def swift_component(package):
    address = re.sub(r"\.git$", "", package["url"])
    namespace, name = address.removeprefix("https://").rsplit("/", 1)
    return Component(
        name=package["identity"], version=package["version"], type=ComponentType.LIBRARY, licenses=licence_of(package["path"]),
        bom_ref=f"{package['identity']}@{package['version']}",
        purl=PackageURL("swift", namespace.lower(), name, package["version"]),
        external_references=[ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(address))])


def toolchain():
    """Swift's standard library and Foundation, which come with the compiler and are linked statically."""
    version = re.search(r"Swift version (\S+)", output_of("swift", "--version")).group(1)
    return Component(name="swift", version=version, type=ComponentType.FRAMEWORK, bom_ref=f"swift@{version}",
                     licenses=[DisjunctiveLicense(id="Apache-2.0")],
                     purl=PackageURL("swift", "github.com/swiftlang", "swift", version))


def deb_component(distribution, name, version, architecture):
    """A package of the distribution."""
    licence = next(licence for prefix, licence in SYSTEM.items() if name.startswith(prefix))
    return Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=f"{name}@{version}/{architecture}",
                     licenses=[LicenseExpression(licence)],
                     purl=PackageURL("deb", distribution, name, version, {"arch": architecture}))


def system_component(archive):
    """The package of the distribution that has this static library."""
    path = pathlib.Path(output_of("gcc", f"-print-file-name={archive}").strip()).resolve()
    package = output_of("dpkg-query", "--search", str(path)).split(": ")[0]
    name, version, architecture = output_of(
        "dpkg-query", "--show", "-f", "${Package} ${Version} ${Architecture}", package).split()
    return deb_component(platform.freedesktop_os_release()["ID"], name, version, architecture)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    version, seconds = sys.argv[1], int(sys.argv[2])
    whole = Component(name="swift-userfaultfd", version=version, type=ComponentType.APPLICATION,
                      bom_ref=f"swift-userfaultfd@{version}", licenses=[DisjunctiveLicense(id="Apache-2.0")])
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"swift-userfaultfd@{version}"),
              metadata=BomMetaData(component=whole, timestamp=datetime.datetime.fromtimestamp(seconds, datetime.UTC)))
    components = {}

    def add(component):
        return components.setdefault(component.bom_ref.value, component)

    programs = []

    def add_program(name, options, system):
        program = add(Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref=f"{name}@{version}",
                                licenses=[DisjunctiveLicense(id="Apache-2.0")]))
        packages = swift_packages(options)
        parts = {identity: add(swift_component(package)) for identity, package in packages.items()}
        for identity, package in packages.items():
            bom.register_dependency(parts[identity], [parts[child["identity"]] for child in package["dependencies"]])
        bom.register_dependency(program, [*parts.values(), *map(add, system)])
        programs.append(program)

    for name, (options, archives) in PROGRAMS.items():
        add_program(name, options, [toolchain(), *map(system_component, archives)])
    name, options, packages = ARM64
    if packages.exists():
        add_program(name, options, [deb_component("debian", *line.split()) for line in packages.read_text().splitlines()])
    bom.components.update(components.values())
    bom.register_dependency(whole, programs)
    document = JsonV1Dot6(bom).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(document):
        sys.exit(f"the document is not CycloneDX 1.6: {error}")
    print(document)


if __name__ == "__main__":
    main()
