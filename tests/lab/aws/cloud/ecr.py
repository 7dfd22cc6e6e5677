"""ECR: what logs in to its registries. Images come from a registry of the engine's own, where this password is good too."""

import base64
import time

from . import iam

PASSWORD = "secret"
LIFE = 12 * 3600


def get_authorization_token(account, caller, request):
    iam.check(caller, "ecr", "ecr:GetAuthorizationToken", "*")
    token = base64.b64encode(f"AWS:{PASSWORD}".encode()).decode()
    registries = request.get("registryIds") or [account.id]
    return {
        "authorizationData": [
            {
                "authorizationToken": token,
                "expiresAt": time.time() + LIFE,
                "proxyEndpoint": f"https://{registry}.dkr.ecr.{account.region}.amazonaws.com",
            }
            for registry in registries
        ]
    }


CALLS = {"GetAuthorizationToken": get_authorization_token}
