"""Test cases: files like those that people send and that broke other pipelines, each with its expected result.

    make cases

The expected result of a case was written before the case was first run. Most modules contain the cases of one format or
subject. The code creates the files' contents, so that they can be read there.
"""
