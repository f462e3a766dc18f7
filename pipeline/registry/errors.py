"""Every refusal of the registry as Confluent documents it: an HTTP status, a code of five digits and a sentence.

Clients decide by the code (40401 makes a serializer register, 40901 stops it), so codes are part of the contract.
"""

from __future__ import annotations

from pipeline.errors import HeadraceError


class RegistryError(HeadraceError):
    """An answer other than success. ``status`` is HTTP's, ``code`` Confluent's ``error_code``."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


def subject_not_found(subject: str) -> RegistryError:
    return RegistryError(404, 40401, f"Subject '{subject}' not found.")


def version_not_found(version: int) -> RegistryError:
    return RegistryError(404, 40402, f"Version {version} not found.")


def schema_not_found(identity: int | str | None = None) -> RegistryError:
    return RegistryError(404, 40403, "Schema not found" if identity is None else f"Schema {identity} not found")


def subject_soft_deleted(subject: str) -> RegistryError:
    return RegistryError(404, 40404, f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently")


def subject_not_soft_deleted(subject: str) -> RegistryError:
    return RegistryError(404, 40405, f"Subject '{subject}' was not deleted first before being permanently deleted")


def version_soft_deleted(subject: str, version: int) -> RegistryError:
    return RegistryError(
        404, 40406, f"Subject '{subject}' Version {version} was soft deleted. Set permanent=true to delete permanently"
    )


def version_not_soft_deleted(subject: str, version: int) -> RegistryError:
    return RegistryError(
        404, 40407, f"Subject '{subject}' Version {version} was not deleted first before being permanently deleted"
    )


def config_not_found(subject: str) -> RegistryError:
    return RegistryError(404, 40408, f"Subject '{subject}' does not have subject-level compatibility configured")


def mode_not_found(subject: str) -> RegistryError:
    return RegistryError(404, 40409, f"Subject '{subject}' does not have subject-level mode configured")


def incompatible(subject: str, messages: list[str]) -> RegistryError:
    reasons = f"[{', '.join(messages)}]"
    return RegistryError(
        409, 40901, f'Schema being registered is incompatible with an earlier schema for subject "{subject}", details: {reasons}'
    )


def invalid_schema(reason: str) -> RegistryError:
    return RegistryError(422, 42201, f"Invalid schema: {reason}")


def unsupported_type(schema_type: str) -> RegistryError:
    return RegistryError(422, 42201, f"Invalid schema type {schema_type}: this registry supports AVRO")


def invalid_version(version: str) -> RegistryError:
    return RegistryError(
        422,
        42202,
        f"The specified version '{version}' is not a valid version id. "
        'Allowed values are between [1, 2^31-1] and the string "latest"',
    )


def invalid_level() -> RegistryError:
    return RegistryError(
        422,
        42203,
        "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, "
        "forward_transitive, and full_transitive",
    )


def invalid_mode(reason: str = "Invalid mode. Valid values are READWRITE, READONLY, IMPORT and FORWARD.") -> RegistryError:
    return RegistryError(422, 42204, reason)


def not_permitted(reason: str) -> RegistryError:
    return RegistryError(422, 42205, reason)


def reference_exists(subject: str, version: int) -> RegistryError:
    return RegistryError(422, 42206, f"One or more references exist to the schema {{subject={subject},version={version}}}.")


def id_does_not_match(existing: int, given: int) -> RegistryError:
    return RegistryError(422, 42207, f"The schema has the ID {existing} already and cannot be imported with the ID {given}")


def invalid_subject(subject: str) -> RegistryError:
    return RegistryError(422, 42208, f"The specified subject '{subject}' is not valid.")


def too_large(reason: str) -> RegistryError:
    return RegistryError(422, 42209, reason)


def bad_request(reason: str) -> RegistryError:
    return RegistryError(400, 400, reason)


def store_failed(reason: str) -> RegistryError:
    return RegistryError(500, 50001, reason)


def timed_out(reason: str) -> RegistryError:
    return RegistryError(500, 50002, reason)


def not_ready(reason: str) -> RegistryError:
    return RegistryError(503, 50301, reason)


def too_busy(limit: int) -> RegistryError:
    return RegistryError(503, 50302, f"{limit} requests are being answered already: try again in a moment")


def unauthorized() -> RegistryError:
    return RegistryError(401, 40101, "User cannot be authenticated: send a user and a password (HTTP basic)")
