"""PDFs made by hand, so that no test needs a library that writes them."""

from __future__ import annotations


def pdf(*pages: str, encrypted: bool = False) -> bytes:
    """A document with one line of text a page."""
    kids = " ".join(f"{3 + 2 * at} 0 R" for at in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
    ]
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    for at, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {4 + 2 * at} 0 R "
            f"/Resources << /Font << /F1 {font} >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    return _file(objects, encrypted)


def _file(objects: list[str], encrypted: bool) -> bytes:
    trailer = ""
    if encrypted:
        key = "<" + "41" * 32 + ">"  # of no password at all
        objects = [*objects, f"<< /Filter /Standard /V 1 /R 2 /O {key} /U {key} /P -44 >>"]
        trailer = f" /Encrypt {len(objects)} 0 R /ID [<00> <00>]"
    body, offsets = "%PDF-1.4\n", []
    for number, text in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{text}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {size} /Root 1 0 R{trailer} >>\nstartxref\n{len(body)}\n%%EOF\n"
    ).encode("latin-1")
