"""`python -m tests.supply.bill FILE`: what a deploy consists of, as CycloneDX 1.6 in JSON."""

import sys
from pathlib import Path

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from tests.supply.lock import ROOT, Pin, pins


def component(pin: Pin, digests: frozenset[str]) -> Component:
    """A package with the hashes of all its files: which one is installed depends on the machine."""
    url = PackageURL("pypi", name=pin.name, version=pin.version)
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:")) for digest in sorted(digests)]
    files = [
        ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(f"{url}"), hashes=[item])
        for item in hashes
    ]
    return Component(
        name=pin.name, version=pin.version, type=ComponentType.LIBRARY, purl=url, bom_ref=f"{url}", external_references=files
    )


def bill() -> str:
    """The bill as JSON."""
    bom = Bom(components=[component(*item) for item in pins((ROOT / "requirements.lock").read_text()).items()])
    bom.metadata.component = root = Component(name="fleet", type=ComponentType.APPLICATION, bom_ref="fleet")
    bom.register_dependency(root, bom.components)
    return str(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2))


if __name__ == "__main__":
    Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    Path(sys.argv[1]).write_text(bill())
