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
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

# Each program with the options that its package was built with, and the static libraries of the system in it.
PROGRAMS = {
    "uffd-selftest": (["--scratch-path", ".build-static"], ["libc.a", "libstdc++.a", "libgcc.a"]),
    "uffd-pager": (["--package-path", "Tools", "--scratch-path", ".build-tools", "--traits", "NBD"], []),
}
APACHE = re.compile(r"Apache License\s+Version 2\.0")


def output_of(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def licence_of(folder):
    """The licence whose text the package has, if it is the one that Swift's packages use."""
    texts = [file.read_text() for file in pathlib.Path(folder).glob("LICENSE*")]
    return [DisjunctiveLicense(id="Apache-2.0")] if any(APACHE.search(text) for text in texts) else []


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


def system_component(archive):
    """The package of the distribution that has this static library."""
    path = pathlib.Path(output_of("gcc", f"-print-file-name={archive}").strip()).resolve()
    package = output_of("dpkg-query", "--search", str(path)).split(": ")[0]
    name, version, architecture = output_of(
        "dpkg-query", "--show", "-f", "${Package} ${Version} ${Architecture}", package).split()
    distribution = platform.freedesktop_os_release()["ID"]
    return Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=f"{name}@{version}",
                     purl=PackageURL("deb", distribution, name, version, {"arch": architecture}))


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
    for name, (options, archives) in PROGRAMS.items():
        program = add(Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref=f"{name}@{version}",
                                licenses=[DisjunctiveLicense(id="Apache-2.0")]))
        packages = swift_packages(options)
        parts = {identity: add(swift_component(package)) for identity, package in packages.items()}
        for identity, package in packages.items():
            bom.register_dependency(parts[identity], [parts[child["identity"]] for child in package["dependencies"]])
        needed = [*parts.values(), add(toolchain()), *(add(system_component(archive)) for archive in archives)]
        bom.register_dependency(program, needed)
        programs.append(program)
    bom.components.update(components.values())
    bom.register_dependency(whole, programs)
    document = JsonV1Dot6(bom).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(document):
        sys.exit(f"the document is not CycloneDX 1.6: {error}")
    print(document)


if __name__ == "__main__":
    main()
