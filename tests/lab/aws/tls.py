"""TLS in front of the lab's AWS: a server for each thing that can be wrong with a certificate, and the files of two CAs.

Called with the address behind it and a directory of its own; prints one line of JSON. When its standard input ends it removes the
directory and ends too.
"""

import datetime
import ipaddress
import json
import pathlib
import shutil
import socket
import ssl
import sys
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.timezone.utc)
HERE = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
ELSEWHERE = x509.DNSName("ecs.eu-west-1.amazonaws.example")

# What is wrong, whose name it is for, and the days from and until which it is good.
KINDS = {
    "good": (HERE, -1, 1),
    "name": (ELSEWHERE, -1, 1),
    "expired": (HERE, -3, -1),
    "future": (HERE, 1, 3),
}


def certificate(subject, names, days, issuer=None, is_ca=False):
    """Returns a certificate and its key; without an issuer it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    signer, signing = (issuer[0].subject, issuer[1]) if issuer else (name, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signing, hashes.SHA256()), key


def pem(made):
    return made.public_bytes(serialization.Encoding.PEM)


def pipe(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def answer(client, context, behind):
    try:
        client.settimeout(30)
        inner = context.wrap_socket(client, server_side=True)
        inner.settimeout(None)
        server = socket.create_connection(behind)
    except OSError:
        client.close()
        return
    threading.Thread(target=pipe, args=(server, inner), daemon=True).start()
    pipe(inner, server)


def serve(context, behind):
    """Serves, and returns the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=answer, args=(client, context, behind), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    folder = pathlib.Path(sys.argv[2])
    ca = certificate("the lab's CA", [], (-9, 9), is_ca=True)
    other = certificate("another CA", [], (-9, 9), is_ca=True)
    (folder / "ca.pem").write_bytes(pem(ca[0]))
    (folder / "other.pem").write_bytes(pem(other[0]))
    ports = {}
    for kind, (name, *days) in KINDS.items():
        made, key = certificate("aws", [name], days, issuer=ca)
        file = folder / f"server-{kind}.pem"
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(text + pem(made))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        ports[kind] = serve(context, (host, int(port)))
    print(json.dumps(ports), flush=True)
    sys.stdin.read()
    shutil.rmtree(folder)


main()
