"""Test cases: files like those that people really send and that broke other pipelines, each with its expected result.

    make cases

The expected result of a case was written down before the case was run. Each module has the cases for one part of the
reader. The content of the files is created in the code, so that it can be read there.
"""
