"""The connectors that come with Headgate, one module a platform; found through the entry points, like yours."""
