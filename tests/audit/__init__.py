"""Known vulnerabilities: of the locked Python packages (pip-audit), and of the C libraries in their wheels (`service.rendering.floors`)."""
