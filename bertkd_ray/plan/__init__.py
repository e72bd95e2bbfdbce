"""What a configuration and its corpus will take: steps, tokens, operations, device hours, gigabytes."""
