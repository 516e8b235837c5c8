"""What is talked about: jobs, schedules, policies, executions, verdicts, errors.

Pure values and pure functions. Nothing here waits (but for the real clock), stores or starts anything.
"""
