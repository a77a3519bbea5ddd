"""Code that runs inside a jail: standard library only, started with -I -S from a read-only folder."""
