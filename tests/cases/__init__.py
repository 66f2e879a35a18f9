"""What people really send: inputs of kinds that broke other pipelines, each with its right result.

    make cases

The right result of a case was written down before the case was run. Each module has the cases of one part of the
reader; a case's content is made here, so that it can be read.
"""
