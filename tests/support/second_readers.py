"""Reads what git-model writes with the libraries of the formats' own projects; exits with an error when one refuses it."""

import json
import sys


def bill(path):
    from cyclonedx.model.bom import Bom
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = open(path, encoding="utf-8").read()
    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if errors:
        sys.exit(f"not valid: {errors}")
    read = Bom.from_json(json.loads(text))
    print(read.metadata.component.type.value, read.metadata.component.name, len(read.components))


def provenance(path):
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    document = json.load(open(path, encoding="utf-8"))
    statement = json_format.ParseDict(document, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())
    print(statement.predicate_type)


{"bill": bill, "provenance": provenance}[sys.argv[1]](sys.argv[2])
