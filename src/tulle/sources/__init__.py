"""Where configuration comes from: files (watched) and their text. Adapter; knows no meaning of what it reads."""
