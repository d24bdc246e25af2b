-- One transaction. Rows replace those of the same id, so loading twice changes nothing.
create table if not exists orders (id integer primary key, day text not null, country text not null, cents integer not null);

insert into orders (id, day, country, cents)
select value ->> 'id', value ->> 'day', value ->> 'country', value ->> 'cents' from json_each(:orders) where true
on conflict (id) do update set day = excluded.day, country = excluded.country, cents = excluded.cents;

select count(*) as orders, sum(cents) as cents from orders;
