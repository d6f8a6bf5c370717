delete from pgflume.progress where queue = {{queue_name}};
delete from pgflume.wakeup where queue = {{queue_name}};
