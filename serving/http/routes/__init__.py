"""The routes, a file for each subject; `create_app` adds the routers."""
