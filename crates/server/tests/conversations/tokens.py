#!/usr/bin/env python3
"""Writes tokens.json: one key of each kind and one token for each algorithm, made by PyJWT, which
shares no code with ours. Needed only to regenerate them: pip install pyjwt cryptography."""

import json
import secrets
import sys

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS = {
    "secret": (secrets.token_bytes(64), ["HS256", "HS384", "HS512"]),
    "rsa": (RSA, ["RS256", "RS384", "RS512", "PS256"]),
    "p256": (ec.generate_private_key(ec.SECP256R1()), ["ES256"]),
    "p384": (ec.generate_private_key(ec.SECP384R1()), ["ES384"]),
    "p521": (ec.generate_private_key(ec.SECP521R1()), ["ES512"]),
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), ["EdDSA"]),
}
jwks, tokens = [], {}
for key_id, (key, algorithms) in KEYS.items():
    public = key if isinstance(key, bytes) else key.public_key()
    maker = jwt.algorithms.get_default_algorithms()[algorithms[0]]
    jwks.append(json.loads(maker.to_jwk(public)) | {"kid": key_id, "use": "sig"})
    for algorithm in algorithms:
        # Valid from 2001 to 2286.
        claims = {"role": "writer", "iat": 1_000_000_000, "exp": 9_999_999_999}
        tokens[algorithm] = jwt.encode(claims, key, algorithm, headers={"kid": key_id})
tokens["none"] = jwt.encode({"role": "writer"}, None, "none")
json.dump({"jwks": {"keys": jwks}, "tokens": tokens}, sys.stdout, indent=1)
print()
