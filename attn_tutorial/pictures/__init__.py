"""Pictures: figures for print, frames that move in a page, one palette."""
