"""Tables of parameters, completed from the signature."""

import griffe


class Signatures(griffe.Extension):
    """Give each parameter its own type and default where a docstring leaves them to the signature.

    Of several names on one line, griffe gives all of them those of the first.
    """

    def on_function(self, *, func: griffe.Function, **_: object) -> None:
        """Look through the parameters that a function describes."""
        of_signature = [parameter.annotation for parameter in func.parameters]
        for section in func.docstring.parsed if func.docstring else ():
            if section.kind is not griffe.DocstringSectionKind.parameters:
                continue
            for described in section.value:
                if described.name in func.parameters:
                    parameter = func.parameters[described.name]
                    described.value = parameter.default
                    if described.annotation in of_signature:
                        described.annotation = parameter.annotation
