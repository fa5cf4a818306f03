"""Views of fields and volumes, rendered to images one by one."""
